"""The kernels under the sanitizers of addresses and of undefined behaviour."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.backends.cpu.kernels import load_variant

NATIVE = Path("runtime/backends/cpu/native")
DRIVER = Path(__file__).with_name("sanitized_driver.cpp")
FLAGS = {
    "avx2": ("-mavx2", "-mfma"),
    "avx512_bf16": (
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
        *("-mavx512bf16", "-mfma", "-mprefer-vector-width=512"),
    ),
}
"""Each way of adding products, and each of attending."""
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
ON_X86 = platform.machine().lower() in {"x86_64", "amd64"}


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS or not ON_X86, reason="needs a C++ compiler for x86")
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("variant", FLAGS)
def test_kernels_stay_within_their_buffers_and_the_language(compiler, variant, tmp_path):
    if load_variant(variant) == "needs other instructions":
        pytest.skip(f"{variant} does not run here")
    program = tmp_path / "driver"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O1", "-g", "-Wno-psabi"),
            *FLAGS[variant],
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *(f"-I{NATIVE}", str(DRIVER), *map(str, sorted(NATIVE.glob("*.cpp")))),
            *("-o", str(program)),
        ],
        check=True,
    )
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("done\n", "")
