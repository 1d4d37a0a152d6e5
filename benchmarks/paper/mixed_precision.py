"""The paper's "MP" baseline: weight bits by what each layer does to the end result on its own.

Every layer is quantized alone, at the target's bits, the rest of the network left as it is, and the
network is sampled; the squared error of the final latent is the layer's cost. Under a b-bit
quantizer it is in proportion to κ(b), so the same allocator that `standard` uses minimises the sum
under the same budget. It takes one sampling run per layer, where a probe takes a dozen for all.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from artifacts.pack.reader import Pack, open_pack
from benchmarks.paper.tables import MP
from benchmarks.quality.measure import Bench
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.rows import Row
from planner.allocate.budgets import Budget, allocate_widths
from planner.allocate.error_shares import kappa
from planner.probe.pictures import dead_leaves
from planner.regrid.regrid import regrid
from planner.settings import BuildSettings
from runtime.upscale import encode_image, sample_latent
from schemas.bit_grid import BitGrid

PICTURES = 2
CROP_PX = 32


class PaperPackMaker(PackMaker):
    """Makes packs of recipes, and the one of the MP baseline.

    Args:
        bench: has the unquantized network that layers are quantized in, one by one.
        limit: how many layers are measured, the others counting as their mean; None for all.
        arguments: as of `PackMaker`.
    """

    def __init__(
        self, bench: Bench, limit: int | None, *arguments: object, **named: object
    ) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.bench = bench
        self.limit = limit

    @contextmanager
    def pack(self, row: Row) -> Iterator[Pack]:
        """A pack that is there as long as the context."""
        if row.name != MP:
            with super().pack(row) as pack:
                yield pack
            return
        output = self.work / "mp-regridded.qpack"
        with super().pack(replace(row, name=f"{MP}-uniform")) as uniform:
            errors = end_to_end_errors(self.bench, uniform, self.limit)
            grid = mixed_precision_grid(uniform, errors, self.settings(row))
            try:
                regrid(uniform, output, grid, checkpoint=self.checkpoint, force=True)
                yield open_pack(output)
            finally:
                shutil.rmtree(output, ignore_errors=True)


def end_to_end_errors(bench: Bench, pack: Pack, limit: int | None = None) -> dict[str, float]:
    """Layer name -> mean squared error of the final latent with that layer alone quantized.

    Args:
        bench: the unquantized network, which is as it was afterwards.
        pack: has the quantized layers.
        limit: how many layers are measured, in the pack's order; the others get the mean.
    """
    controls = _controls(bench)
    network = bench.pipeline.network
    plain = _latents(bench, controls)
    measured: dict[str, float] = {}
    for name in list(pack.layer_names)[:limit]:
        layer = network.get_submodule(name)
        weight = network.get_parameter(f"{name}.weight")
        layer.weight = nn.Parameter(pack.layer(name).decode().to(weight.dtype), requires_grad=False)
        try:
            latents = _latents(bench, controls)
        finally:
            layer.weight = weight
        differences = [(a - b).square().mean() for a, b in zip(latents, plain, strict=True)]
        measured[name] = float(torch.stack(differences).mean())
    mean = sum(measured.values()) / len(measured)
    return {name: measured.get(name, mean) for name in pack.layer_names}


def mixed_precision_grid(pack: Pack, errors: dict[str, float], settings: BuildSettings) -> BitGrid:
    """The grid of ``pack`` with weight bits by ``errors``, within the target's mean.

    Args:
        pack: whose layers were quantized for the measurement.
        errors: of every layer, at the bits that it has there.
        settings: target and bounds.
    """
    names = sorted(errors)
    records = pack.manifest.layers
    bits = allocate_widths(
        [errors[name] / kappa(records[name].weight_bits) for name in names],
        [
            Budget(
                [records[name].out_features * records[name].in_features for name in names],
                settings.target.weight_bits,
            )
        ],
        minimum_bits=settings.minimum_bits,
        maximum_bits=settings.maximum_bits,
    )
    layers = dict(pack.bit_grid.layers)
    for name, width in zip(names, bits, strict=True):
        layers[name] = layers[name].model_copy(update={"weight_bits": width})
    return pack.bit_grid.model_copy(update={"layers": layers})


def _controls(bench: Bench) -> list[Tensor]:
    """Control latents of generated pictures, which no table is measured on."""
    pictures = [dead_leaves(CROP_PX, CROP_PX, seed) for seed in range(PICTURES)]
    return [encode_image(bench.pipeline, rgb, bench.settings).control for rgb in pictures]


@torch.inference_mode()
def _latents(bench: Bench, controls: Sequence[Tensor]) -> list[Tensor]:
    return [
        sample_latent(bench.pipeline, control, replace(bench.settings, seed=seed))
        for seed, control in enumerate(controls)
    ]
