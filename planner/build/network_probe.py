"""Which parameters of a network can reach its output, found from the network itself.

A published checkpoint may carry layers that no forward pass reads. They must neither draw on the
bit budget nor take room in a pack. A list of names would have to be kept in step with the network;
instead the network is built with the same blocks but a few channels, run once and differentiated:
what gets no gradient is inactive.

One of the few planner modules that may import the runtime. The import costs seconds, so it waits
until a probe is asked for.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from schemas.errors import PackError
from schemas.manifest import Manifest

if TYPE_CHECKING:
    import torch

    from artifacts.family import Architecture

PROBE_SEED = 2602_01273


def _randomise(parameters: "Sequence[torch.nn.Parameter]", generator: "torch.Generator") -> None:
    """Fill matrices with normals of variance 1/fan_in, vectors with normals around 1.

    Nothing may stay at an initial zero or one: a zero layer would hide all layers behind it.
    """
    import torch  # noqa: PLC0415  (heavy: see the module docstring)

    with torch.no_grad():
        for parameter in parameters:
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(1.0, 0.5, generator=generator)


@cache
def find_active_tensors(architecture: "Architecture") -> frozenset[str]:
    """Name the parameters that the output of the network depends on.

    Args:
        architecture: the network; of its configuration only the structure matters, not the widths.

    Returns:
        Names as in the checkpoint; buffers are not among them.
    """
    import torch  # noqa: PLC0415

    from runtime.network.family import network_family  # noqa: PLC0415

    family = network_family(architecture.family)
    small = family.probe_config(architecture.config)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    # The caller's random state and gradient mode are none of the probe's business.
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        network = family.build(small, architecture.variant).double()
        named = dict(network.named_parameters())
        _randomise(list(named.values()), generator)
        output = network(*family.probe_inputs(small, generator))
        # A random projection: under a plain sum, gradients that differ in sign could cancel.
        weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        projected = (output * weights).sum()
        gradients = torch.autograd.grad(projected, list(named.values()), allow_unused=True)
    return frozenset(
        name
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and bool(gradient.any())
    )


def active_linears(architecture: "Architecture") -> list[str]:
    """Name the quantizable layers whose weight is active, in network order."""
    active = find_active_tensors(architecture)
    return [name for name in architecture.quantizable if f"{name}.weight" in active]


def shared_inputs(architecture: "Architecture", layers: Sequence[str]) -> dict[str, str]:
    """Find layers that are fed the same tensor, such as those of queries, keys and values.

    Args:
        architecture: the network.
        layers: names of linear layers that a forward pass calls.

    Returns:
        Layer -> the first of ``layers`` that has its input.
    """
    import torch  # noqa: PLC0415

    from runtime.network.family import network_family  # noqa: PLC0415

    family = network_family(architecture.family)
    small = family.probe_config(architecture.config)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    fed: dict[str, torch.Tensor] = {}  # all are kept, so none takes another's place in memory
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = family.build(small, architecture.variant).double()
        for name in layers:

            def keep(
                _module: torch.nn.Module, arguments: tuple[Any, ...], name: str = name
            ) -> None:
                fed[name] = arguments[0]

            network.get_submodule(name).register_forward_pre_hook(keep)
        network(*family.probe_inputs(small, generator))
    first: dict[int, str] = {}
    return {name: first.setdefault(id(fed[name]), name) for name in layers}


def check_network(manifest: Manifest) -> None:
    """Make sure that a pack leaves out nothing that its network reads.

    Raises:
        PackError: names the first tensors that are needed and absent.
    """
    from artifacts.pack.contents import architecture_of  # noqa: PLC0415

    needed = find_active_tensors(architecture_of(manifest))
    absent = sorted(needed & set(manifest.omitted))
    if absent:
        raise PackError(f"the network reads {', '.join(absent[:3])}, which the pack leaves out")
