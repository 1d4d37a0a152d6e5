"""What a finished pack costs, by the paper's account and by the true one (method, Sec. 6).

`planner.estimate.accounting` explains the two. The paper's needs mean bits and ranks alone; the
true one goes layer by layer here, with every layer's own bits at every timestep, and leaves out
what the pack does not hold: layers whose results are tabled, and those that nothing reads.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from artifacts.pack.file_names import MODULATION
from artifacts.pack.modulation import tabled_tensors
from artifacts.pack.reader import Pack
from planner.estimate.accounting import (
    FULL_PRECISION_BITS,
    HALF_PRECISION_BITS,
    attention_operations,
    full_precision_operations,
    layer_macs,
    network_size,
    network_work,
    paper_operations,
    paper_parameters,
)
from planner.estimate.stored_bytes import checkpoint_bytes
from planner.inspect.layer_bytes import factor_numbers
from schemas.manifest import Manifest

_POSITIVE_TOKENS = "positive.embeds"
_FP32_BYTES = 4


@dataclass(frozen=True)
class Accounts:
    """Both accounts of one picture; operations are in 32 x 32-bit equivalents.

    Attributes:
        steps: forward passes, one per step.
        side_px: of the square result.
        text_tokens: of the prompt.
        full_parameters: of the unquantized network.
        paper_parameters: fp32 equivalents.
        full_linear_operations: of block linears at full precision.
        paper_operations: of the same by the paper's convention, at the pack's mean bits.
        true_linear_operations: of the layers that the pack holds, each at its own bits, factors and
            unquantized layers at 16 x 16.
        full_attention_operations, attention_operations: of QKᵀ and PV.
        checkpoint_bytes, pack_bytes: the transformer in bfloat16, and in the pack.
    """

    steps: int
    side_px: int
    text_tokens: int
    full_parameters: int
    paper_parameters: float
    full_linear_operations: float
    paper_operations: float
    true_linear_operations: float
    full_attention_operations: float
    attention_operations: float
    checkpoint_bytes: int
    pack_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def pack_accounts(pack: Pack) -> Accounts:
    """Count the smallest picture that the pack's sampling defaults allow, a square."""
    manifest, architecture = pack.manifest, pack.architecture
    steps, side_px, text_tokens = manifest.sampling.steps, _side_px(pack), _text_tokens(pack)
    tokens = architecture.count_tokens(side_px, text_tokens)
    macs = layer_macs(architecture, tokens)
    attention = architecture.family.attention_work(architecture.config, tokens)
    return Accounts(
        steps=steps,
        side_px=side_px,
        text_tokens=text_tokens,
        full_parameters=network_size(architecture).parameters,
        paper_parameters=_paper_parameters(pack),
        full_linear_operations=full_precision_operations(
            network_work(architecture, tokens), steps=steps
        ),
        paper_operations=_paper_operations(pack, tokens, macs),
        true_linear_operations=_true_operations(pack, tokens, macs),
        full_attention_operations=attention_operations(
            attention,
            steps=steps,
            bits=FULL_PRECISION_BITS,
            probability_bits=FULL_PRECISION_BITS,
        ),
        attention_operations=attention_operations(
            attention, steps=steps, probability_bits=manifest.quantizer.softmax_bits
        ),
        checkpoint_bytes=checkpoint_bytes(architecture).parameters,
        pack_bytes=manifest.transformer_bytes.pack,
    )


def _paper_parameters(pack: Pack) -> float:
    """fp32 equivalents; a table of modulations counts for what it replaces."""
    architecture, manifest = pack.architecture, pack.manifest
    absent = tabled_tensors(manifest, architecture)
    size = network_size(architecture, {*_kept(manifest), *_tabled(pack)})
    gone = sum(prod(architecture.tensor_shapes[name]) for name in absent)
    table = manifest.files[MODULATION].bytes if manifest.modulation is not None else 0
    stored = replace(size, parameters=size.parameters - gone + table // _FP32_BYTES)
    return paper_parameters(stored, manifest.reached.weight_bits, _nominal_rank(manifest))


def _paper_operations(pack: Pack, tokens: Mapping[str, int], macs: Mapping[str, int]) -> float:
    manifest, kept = pack.manifest, _kept(pack.manifest)
    return paper_operations(
        network_work(pack.architecture, tokens, {*kept, *_tabled(pack)}),
        weight_bits=manifest.reached.weight_bits,
        activation_bits=manifest.reached.activation_bits,
        rank=_nominal_rank(manifest),
        steps=manifest.sampling.steps,
        kept_macs=sum(macs[name] for name in kept),
    )


def _true_operations(pack: Pack, tokens: Mapping[str, int], macs: Mapping[str, int]) -> float:
    """Bit products of every layer, averaged over the grid's timesteps, in full-precision units."""
    tokens_through = pack.architecture.family.tokens_through
    products = 0.0
    for name, record in pack.manifest.layers.items():
        activation_bits = pack.bit_grid.layers[name].activation_bits
        mean_bits = sum(activation_bits) / len(activation_bits)
        factors = tokens_through(name, tokens) * factor_numbers(record)
        products += macs[name] * record.weight_bits * mean_bits + factors * HALF_PRECISION_BITS**2
    return 2 * pack.manifest.sampling.steps * products / FULL_PRECISION_BITS**2


def _kept(manifest: Manifest) -> list[str]:
    return [name for name, record in manifest.layers.items() if not record.is_quantized]


def _tabled(pack: Pack) -> list[str]:
    """Layers that the pack has results of instead."""
    absent = tabled_tensors(pack.manifest, pack.architecture)
    return [name for name in pack.architecture.quantizable if f"{name}.weight" in absent]


def _nominal_rank(manifest: Manifest) -> int:
    """r_G + r_L as the recipe names them, else the largest rank of SVD-G that a layer has."""
    named = [manifest.recipe.settings.get(rank) for rank in ("global_rank", "local_rank")]
    ranks = [rank for rank in named if type(rank) is int and rank >= 0]  # a bool is no rank
    if len(ranks) == len(named):
        return sum(ranks)
    return max((record.global_rank for record in manifest.layers.values()), default=0)


def _side_px(pack: Pack) -> int:
    """The smallest side of a result that the network sees, in whole tokens."""
    architecture = pack.architecture
    token_px = architecture.family.vae_factor * architecture.latent_size.patch_size
    return -(-pack.manifest.sampling.min_side_px // token_px) * token_px


def _text_tokens(pack: Pack) -> int:
    """Of the pack's own prompts, else of the published network's."""
    header = pack.prompt_header
    if header is None:
        return pack.architecture.family.text_tokens
    return header.tensors[_POSITIVE_TOKENS].shape[0]
