"""Export the JSON Schemas beside this module: ``python -m schemas.export``.

Other programs can check a pack's JSON files with them. They say less than the models: rules that
span several fields exist only in Python.
"""

from pathlib import Path

from pydantic import BaseModel

from schemas.bit_grid import BitGrid
from schemas.calibration import Calibration
from schemas.json_io import format_json
from schemas.manifest import Manifest
from schemas.sensitivity import SensitivityMap

FOLDER = Path(__file__).parent / "json"
_MODELS: dict[str, type[BaseModel]] = {
    "bit_grid": BitGrid,
    "calibration": Calibration,
    "sensitivity": SensitivityMap,
    "manifest": Manifest,
}


def schema_texts() -> dict[str, str]:
    """File name -> text of every exported schema."""
    return {
        f"{name}.schema.json": format_json(model.model_json_schema())
        for name, model in _MODELS.items()
    }


def export(folder: Path = FOLDER) -> None:
    """Write every schema into ``folder``, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schema_texts().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    export()
