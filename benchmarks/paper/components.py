"""Principal components of what `ff.net.2` gives: the paper's Fig. 2, right, and Fig. 4.

`ff.net.2` closes the feed-forward; its outputs are added to the stream that the picture is made of.
Their spectrum tells how many directions hold the energy (Fig. 2). Leaving components out tells what
they carry (Fig. 4): few leading ones hold the energy, and the many others the fine detail, which is
why global factors alone are not enough. What H-SVD and SVD-G leave of an error is compared in these
components.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.quality.intervals import relative_error_db
from benchmarks.quality.measure import Bench
from benchmarks.quality.spectrum import octave_errors_db

LAYER_END = ".ff.net.2"
ENERGY = 1e-30
"""Below it a component holds nothing."""


class Outputs(NamedTuple):
    """What one layer reads and gives while a picture is made.

    Attributes:
        inputs: float32 [tokens, in], all steps.
        outputs: float32 [tokens, out].
        components: orthonormal columns [out, out], those of most energy first.
        energies: of the outputs along them [out], descending.
    """

    inputs: Tensor
    outputs: Tensor
    components: Tensor
    energies: Tensor


class Removal(NamedTuple):
    """A network that lacks components of its feed-forward outputs.

    Attributes:
        which: what is left out, for readers.
        share: of the components that are left out.
        energy: share of the outputs' energy that is left out.
        errors_db: of the final latent, whole (``latent_db``) and by octave.
    """

    which: str
    share: float
    energy: float
    errors_db: dict[str, float]


def output_layers(network: nn.Module) -> list[str]:
    """Names of the image stream's feed-forward output layers that are linear."""
    return [
        name
        for name, module in network.named_modules()
        if name.endswith(LAYER_END) and isinstance(module, nn.Linear)
    ]


@torch.inference_mode()
def gather(bench: Bench, names: Sequence[str], case: int = 0) -> dict[str, Outputs]:
    """Run one case, unquantized, and decompose what the layers give."""
    network = bench.pipeline.network
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            seen[name].append((given[0].flatten(0, -2).float(), result.flatten(0, -2).float()))

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = network.get_submodule(name).register_forward_hook(watch(name))
            stack.callback(handle.remove)
        bench.sample(network, bench.pipeline.bits_at, case, 0)
    return {
        name: decompose(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))
        for name, pairs in seen.items()
        if pairs
    }


def decompose(inputs: Tensor, outputs: Tensor) -> Outputs:
    """Principal components of ``outputs`` [tokens, out], around zero as the factors see them."""
    values, vectors = torch.linalg.eigh(outputs.T.double() @ outputs.double())
    return Outputs(inputs, outputs, vectors.flip(1).float(), values.flip(0).clamp_min(0))


def error_by_component(
    found: Outputs, weight: Tensor, decoded: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Energy of a weight's error in every component, over that of the output, float64 [out].

    Args:
        found: of the layer.
        weight: unquantized [out, in].
        decoded: label -> the weight that stands for it.
    """
    errors = {}
    for label, other in decoded.items():
        error = found.inputs @ (other.float() - weight.float()).T @ found.components
        errors[label] = error.double().square().sum(0) / found.energies.clamp_min(ENERGY)
    return errors


@torch.inference_mode()
def remove(
    bench: Bench, found: Mapping[str, Outputs], shares: Sequence[float], case: int = 0
) -> list[Removal]:
    """Sample with the leading, or the trailing, share of components left out of every layer."""
    network = bench.pipeline.network
    reference = bench.references[case][0]
    removals = []
    for which in ("leading", "trailing"):
        for share in shares:
            lost, total = 0.0, 0.0
            with ExitStack() as stack:
                for name, outputs in found.items():
                    count = max(1, round(share * len(outputs.energies)))
                    chosen = slice(0, count) if which == "leading" else slice(-count, None)
                    lost += float(outputs.energies[chosen].sum())
                    total += float(outputs.energies.sum())
                    hook = _without(outputs.components[:, chosen])
                    handle = network.get_submodule(name).register_forward_hook(hook)
                    stack.callback(handle.remove)
                latent = bench.sample(network, bench.pipeline.bits_at, case, 0)
            errors = {"latent_db": relative_error_db(reference, latent)}
            errors |= octave_errors_db(reference, latent)
            removals.append(Removal(which, share, lost / total, errors))
    return removals


def _without(directions: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_module: nn.Module, _given: tuple[Tensor, ...], result: Tensor) -> Tensor:
        return result - (result @ directions) @ directions.T

    return hook
