"""A whole small network on the compiled kernels, from packs of every kind."""

import pytest
import torch

from artifacts.pack.reader import open_pack
from runtime.backends.cpu.kernels import native_kernels
from runtime.backends.cpu.native_linear import NativeLinear
from runtime.load import network_from_pack
from schemas.manifest import QuantizerRecord
from tests.artifacts.make_pack import PROMPT_TOKENS, TINY, make_pack

CPU = torch.device("cpu")
BLEND = {
    "format_version": 2,
    "min_reader_version": 2,
    "quantizer": QuantizerRecord(weight_scale="gaussian", activation_scale="blend"),
}
PACKS = {
    "plain": {},
    "another variant": {"variant": "r1"},
    "8-bit factors": {"factor_bits": 8},
    "no signs": {"signs": False},
    "blended scales": {"changes": BLEND},
    "layers in 16 bits": {"unquantized": ("transformer_blocks.0.attn.to_q",)},
    "a table of modulations": {"modulation": "table", "factor_bits": 8},
    "table and layers": {"modulation": "both"},
}
# Without codes only float32's rounding differs, through two blocks of two dozen layers.
ROUNDING = 1e-4
# With them a value on the border of two levels may fall to the other side, and the layers after it
# see another input.
OTHER_CODES = 2e-2

needs_kernels = pytest.mark.skipif(native_kernels().kernels is None, reason=str(native_kernels()))


def inputs(pack):
    """Of the pack's own prompts, at a step that its table has."""
    generator = torch.Generator().manual_seed(3)
    pooled, table = pack.pooled_prompts().float(), pack.manifest.modulation
    latents = torch.randn(2, len(pooled), TINY.in_channels, 8, 12, generator=generator)
    text = (len(pooled), PROMPT_TOKENS, TINY.joint_attention_dim)
    return {
        "hidden_states": latents[0],
        "control": latents[1],
        "prompt_embeds": torch.randn(text, generator=generator),
        "pooled": pooled,
        "timestep": torch.full((len(pooled),), 500.0 if table is None else table.timesteps[1]),
    }


@needs_kernels
@pytest.mark.parametrize("options", PACKS.values(), ids=PACKS.keys())
def test_it_equals_the_references(tmp_path, options):
    make_pack(tmp_path / "a.qpack", **options)
    pack = open_pack(tmp_path / "a.qpack")
    fast, slow = (
        network_from_pack(pack, device=CPU, dtype=torch.float32, backend=name)
        for name in ("cpu", "reference")
    )
    assert {m.name for m in fast.modules() if isinstance(m, NativeLinear)} == set(pack.layer_names)
    for step, bound in ((None, ROUNDING), (0, OTHER_CODES), (1, OTHER_CODES)):
        bits = None if step is None else pack.bit_grid.at_step(step)
        found, expected = (net(**inputs(pack), activation_bits=bits) for net in (fast, slow))
        assert float(expected.std()) > 0.1
        assert float((found - expected).norm() / expected.norm()) < bound
