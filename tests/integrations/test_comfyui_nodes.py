"""The nodes, called the way ComfyUI calls nodes, with stand-ins of the two modules they import."""

import importlib.util
import inspect
import sys
import types
from pathlib import Path

import pytest
import torch

import qdit4sr
from schemas.errors import UsageError
from tests.artifacts.make_pack import make_pack

PACKAGE = Path(__file__).parents[2] / "integrations" / "comfyui"


class ProgressBar:
    """ComfyUI's, whose hook raises when the user stops the run."""

    bars: list

    def __init__(self, total):
        self.total, self.done, self.stop_at = total, 0, None
        ProgressBar.bars.append(self)

    def update(self, value):
        self.done += value
        if self.done == ProgressBar.stop_at:
            raise InterruptedError


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """The package, imported as ComfyUI does: by its folder, under a name of its own."""
    known = {}
    folder_paths = types.ModuleType("folder_paths")
    folder_paths.models_dir = str(tmp_path / "models")
    folder_paths.add_model_folder_path = lambda name, path: known.setdefault(name, []).append(path)
    folder_paths.get_folder_paths = lambda name: known[name]
    comfy, utils = types.ModuleType("comfy"), types.ModuleType("comfy.utils")
    comfy.utils, utils.ProgressBar = utils, ProgressBar
    ProgressBar.bars, ProgressBar.stop_at = [], None
    for module in (folder_paths, comfy, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location(
        "custom_node_qdit4sr", PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.delitem(sys.modules, f"{spec.name}.nodes", raising=False)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path):
    (tmp_path / "models" / "qpacks").mkdir(parents=True)
    make_pack(tmp_path / "models" / "qpacks" / "m.qpack")
    return tmp_path / "models" / "qpacks" / "m.qpack"


def call(node, **given):
    """Call a node with defaults in place of what is not given, as ComfyUI's interface does."""
    inputs = node.INPUT_TYPES()
    values = {}
    for name, spec in (inputs["required"] | inputs.get("optional", {})).items():
        kind = spec[0]
        if name in given:
            values[name] = given[name]
        else:
            values[name] = kind[0] if isinstance(kind, list) else spec[1]["default"]
    results = getattr(node(), node.FUNCTION)(**values)
    assert isinstance(results, tuple)
    assert len(results) == len(node.RETURN_TYPES)
    return results[0]


def test_nodes_are_what_comfyui_expects(nodes):
    assert set(nodes.NODE_CLASS_MAPPINGS) == set(nodes.NODE_DISPLAY_NAME_MAPPINGS)
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        names = {*inputs["required"], *inputs.get("optional", {})}
        assert set(inspect.signature(getattr(node, node.FUNCTION)).parameters) - {"self"} == names
        assert isinstance(node.CATEGORY, str)


def test_a_pack_is_found_loaded_and_upscales_a_batch(nodes, pack):
    load, upscale = nodes.NODE_CLASS_MAPPINGS.values()
    assert load.INPUT_TYPES()["required"]["pack"] == (["m.qpack"],)
    loaded = call(load, device="cpu")
    image = torch.rand(2, 6, 8, 3, generator=torch.Generator().manual_seed(1))
    result = call(upscale, pack=loaded, image=image, steps=2, seed=5)
    assert result.shape == (2, 24, 32, 3)
    assert result.dtype == torch.float32
    assert 0 <= float(result.min()) <= float(result.max()) <= 1
    expected = qdit4sr.load(pack, device="cpu")(
        image[1].permute(2, 0, 1), num_inference_steps=2, seed=5, output_type="pt"
    ).images
    torch.testing.assert_close(result[1:], expected.permute(0, 2, 3, 1))
    (bar,) = ProgressBar.bars
    assert (bar.done, bar.total) == (4, 4)
    assert call(upscale, pack=loaded, image=image, steps=1, scale="1").shape == (2, 6, 8, 3)


def test_a_run_is_interrupted_by_the_progress_bar(nodes, pack):
    load, upscale = nodes.NODE_CLASS_MAPPINGS.values()
    loaded = call(load, device="cpu")
    ProgressBar.stop_at = 1
    with pytest.raises(InterruptedError):
        call(upscale, pack=loaded, image=torch.zeros(1, 6, 8, 3), steps=3)


def test_a_prompt_without_encoders_says_so(nodes, pack):
    load, upscale = nodes.NODE_CLASS_MAPPINGS.values()
    loaded = call(load, device="cpu")
    with pytest.raises(UsageError, match="no text encoders"):
        call(upscale, pack=loaded, image=torch.zeros(1, 6, 8, 3), steps=1, prompt="a cat")
