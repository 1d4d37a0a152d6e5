"""The kernels compile for devices that are not here: the interpreter is more forgiving than Triton.

A process of its own, because kernels are either interpreted or compiled.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from runtime.backends.triton.prepare_kernel import prepare_kernel
from runtime.backends.triton.product_kernel import product_kernel
from runtime.backends.triton.low_rank_kernel import low_rank_kernel
from runtime.backends.triton.tile_table import config_for

POINTERS = {"x": "bf16", "z": "bf16", "left": "bf16", "right": "bf16", "codes": "i8", "sum": "i32",
            "fault": "i32", "high": "u8", "low": "u8", "offset": "i32", "low_rank": "bf16",
            "down": "bf16", "up": "bf16", "bias": "bf16", "y": "bf16"}
FLOATS = {"norm", "of_rms", "of_peak"}

def ptx(kernel, capability, more=(), **constants):
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = "*" + POINTERS.get(name[:-4], "fp32")
            attributes[index,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if name in FLOATS else "i32"
            if name not in {"M", "tokens", "half", "fault"}:
                attributes[index,] = [["tt.divisibility", 16]]
    numbered = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, numbered, attributes)
    options = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False, **dict(more)}
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options).asm["ptx"]

capability = int(sys.argv[1])
tensor_cores = "wgmma.mma_async" if capability == 90 else "mma.sync"
launch = config_for(capability, "prepare", 4096, 1536, 1536)
launch = {key: launch[key] for key in ("num_warps", "num_stages", "maxnreg")}
text = ptx(prepare_kernel, capability, launch, divisor_ptr=None, L=12, R=128, LP=16, RP=128, BM=4,
           RMS=True, PEAK=True, INPUT_SPLITS=1, SPLITS=2, NATIVE=True)
assert "mma" in text and "div.rn.f32" in text
for high, low, rank in ((4, 0, 8), (4, 1, 32)):
    text = ptx(product_kernel, capability, **({} if low else {"low_ptr": None}),
               HIGH=high, LOW=low, SUM_FACTOR=-30, RG=rank, Q=3, RGP=max(16, rank), QP=16,
               EVEN=True, NATIVE=True, RAW=False, BN=64, BM=16, BK=64, GROUP=8)
    assert tensor_cores in text and ".s32.s8.s8" in text
for scale in ({"scale_ptr": None}, {}):
    text = ptx(low_rank_kernel, capability, **scale, RG=8, P=4, Q=3, RGP=16, PP=16, NATIVE=True,
               BM=16, BK=64)
    assert "mma" in text
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_to_tensor_cores(capability, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, str(capability)],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
