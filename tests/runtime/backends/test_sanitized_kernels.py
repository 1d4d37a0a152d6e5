"""The kernels under the sanitizers of addresses and of undefined behaviour."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path("runtime/backends/cpu/native")
DRIVER = Path(__file__).with_name("sanitized_driver.cpp")
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
ON_X86 = platform.machine().lower() in {"x86_64", "amd64"}


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS or not ON_X86, reason="needs a C++ compiler for x86")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_kernels_stay_within_their_buffers_and_the_language(compiler, tmp_path):
    program = tmp_path / "driver"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O1", "-g", "-mavx2", "-mfma", "-Wno-psabi"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *(f"-I{NATIVE}", str(DRIVER), *map(str, sorted(NATIVE.glob("*.cpp")))),
            *("-o", str(program)),
        ],
        check=True,
    )
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("done\n", "")
