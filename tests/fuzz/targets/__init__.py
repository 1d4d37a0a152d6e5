"""What is fuzzed: a class for each kind of input, loaded when its name is asked for."""

from importlib import import_module

from tests.fuzz.case import Target

TARGETS = {
    "headers": "Headers",
    "packs": "Packs",
    "checkpoints": "Checkpoints",
    "images": "Images",
    "grids": "Grids",
    "calibrations": "Calibrations",
    "planted": "Planted",
}


def make_target(name: str) -> Target:
    """The target of that name, not yet prepared."""
    module = import_module(f"tests.fuzz.targets.{name}")
    target: Target = getattr(module, TARGETS[name])()
    return target
