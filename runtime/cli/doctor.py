"""``qrun doctor``: what this machine offers.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from typing import TYPE_CHECKING, Any

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, terminal
from runtime.cli.options import Debug, Json

if TYPE_CHECKING:
    from runtime.backends import Backend

ACTIVATION_BITS = (
    "no backend multiplies integers of fewer than 8 bits: --activation-bits 8 takes little or no"
    " more time than a pack's own, and is closer to the unquantized network"
)
DOCTOR_EXAMPLE = """
Example:

qrun doctor --json
"""


def doctor(json_output: Json = False, debug: Debug = False) -> None:
    """Show what this machine offers: versions, devices, memory, backends."""
    with exit_on_error(debug=debug):
        facts = machine()
        if json_output:
            print_json(facts)
            return
        from rich.table import Table

        table = Table(show_header=False)
        for name, value in facts.items():
            shown = "\n".join(value) if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), shown)
        terminal().print(table)


def machine() -> dict[str, Any]:
    """What `doctor` shows, by name."""
    import platform

    import pyvips
    import torch

    from runtime.backends import BACKENDS
    from runtime.backends.cpu.kernels import kernel_report

    devices = [torch.device("cpu")]
    names = [platform.processor() or platform.machine()]
    memory = [_cpu_memory()]
    for index in range(torch.cuda.device_count()):
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        devices.append(torch.device("cuda", index))
        names.append(torch.cuda.get_device_name(index))
        memory.append(f"{free_bytes / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB free")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "threads": torch.get_num_threads(),
        "devices": [
            f"{device}: {name}, {free}"
            for device, name, free in zip(devices, names, memory, strict=True)
        ],
        "backends": [
            f"{backend.name} on {device}: {backend.missing(device) or _available(backend)}"
            for backend in BACKENDS.values()
            for device in devices
        ],
        "cpu_kernels": kernel_report(),
        "activation_bits": ACTIVATION_BITS,
    }


def _available(backend: "Backend") -> str:
    said = [f"available, {described}" if (described := backend.described()) else "available"]
    if backend.self_check is not None:
        said.append("taken by itself where it passes a check on a pack's layers")
    return "; ".join(said)


def _cpu_memory() -> str:
    """Free and total main memory, where the system tells."""
    import os

    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        free, total = (os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return "memory unknown"  # Windows and macOS do not answer both
    return f"{free * page_bytes / 2**30:.1f} of {total * page_bytes / 2**30:.1f} GiB free"
