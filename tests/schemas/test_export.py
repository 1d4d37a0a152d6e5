import subprocess
import sys

from schemas.export import FOLDER, export, schema_texts


def test_exported_schemas_are_those_of_the_models(tmp_path):
    export(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == schema_texts()
    kept = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert kept == written, "run python -m schemas.export"


def test_schemas_import_nothing_heavy():
    code = (
        "import sys, schemas.export, artifacts.dit4sr.config;"
        "print([m for m in ('torch', 'numpy', 'scipy', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
