"""What a measurement was made on."""

import os
import platform
from pathlib import Path

import torch

from runtime.backends.cpu.kernels import native_kernels
from runtime.processor import processor_features

_EXTENSIONS = ("avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Those that matrix products depend on."""


def machine_facts(device: torch.device) -> dict[str, object]:
    """Names and numbers that times depend on."""
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "device": device.type,
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "capability": f"{major}.{minor}",
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    else:
        facts["largest_isa"] = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
        features = processor_features()
        facts["kernels"] = str(native_kernels())
        facts["extensions"] = [name for name in _EXTENSIONS if features.get(name)]
    return facts


def _processor() -> str:
    """The processor's name as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
