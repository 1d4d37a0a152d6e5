"""Compiled CPU kernels beside what pyproject.toml says; without a compiler all else works.

pip install .                                # with them where there is a C++17 compiler
python setup.py build_ext --inplace          # into the source tree, for development
python -m pip wheel . --no-deps              # one wheel for every Python of this platform
"""

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("runtime/backends/cpu/native")
AVX512 = [
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
    *("-mfma", "-mprefer-vector-width=512"),
]
VARIANTS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx_vnni": ["-mavx2", "-mfma", "-mavxvnni"],
    "avx512_vnni": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
}
FLAGS = ["-std=c++17", "-O3", "-fopenmp", "-fvisibility=hidden", "-Wno-psabi"]


class BuildKernels(build_ext):
    """Libraries for ctypes: no Python in them, so no Python version in their names."""

    def get_ext_filename(self, fullname: str) -> str:
        """``a.b.c`` -> ``a/b/c.so``."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Every variant compiles the same files, into objects of its own."""
        shared = self.build_temp
        self.build_temp = str(Path(shared, ext.name))
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared


class PlatformWheel(bdist_wheel):
    """One wheel for every Python 3 of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """``py3-none-PLATFORM``."""
        return "py3", "none", super().get_tag()[2]


def extensions() -> list[Extension]:
    """One library for every variant, on the processors that can have them."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return []
    return [
        Extension(
            f"runtime.backends.cpu.native.kernels_{name}",
            sources=sorted(map(str, FOLDER.glob("*.cpp"))),
            depends=sorted(map(str, FOLDER.glob("*.h"))),
            extra_compile_args=[*FLAGS, *flags],
            extra_link_args=["-fopenmp"],
            language="c++",
            optional=True,
        )
        for name, flags in VARIANTS.items()
    ]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
