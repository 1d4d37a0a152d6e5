"""What ``qplan estimate`` says before anything is built: sizes, operations, expected distortion.

``estimate`` computes, ``Estimate.to_json`` hands the numbers on, and `planner.estimate.tables` lays
them out.
"""

from collections.abc import Mapping
from dataclasses import replace

from artifacts.codec.gaussian_quantizer import gaussian_level
from artifacts.family import Architecture
from planner.allocate.vasmp import LayerStatistics
from planner.build.inventory import left_to_table
from planner.build.network_probe import find_active_tensors
from planner.estimate.accounting import (
    HALF_PRECISION_BITS,
    layer_macs,
    network_size,
    network_work,
)
from planner.estimate.costs import FULL_ATTENTION, Counter
from planner.estimate.distortion import decibels, predict_distortion
from planner.estimate.mean_bits import mean_bits_over_work
from planner.estimate.modulations import (
    modulation_choices,
    own_size,
    predicted_bits,
    share_of_table,
)
from planner.estimate.result import Estimate, ImageSettings, LayerEstimate
from planner.estimate.runs import network_runs
from planner.estimate.stored_bytes import checkpoint_bytes, pack_bytes
from planner.settings import BuildSettings
from planner.target import Target


def estimate(
    architecture: Architecture,
    settings: BuildSettings,
    image: ImageSettings | None = None,
    *,
    variances: Mapping[str, float] | None = None,
) -> Estimate:
    """Predict what a build would give, without building.

    Args:
        architecture: the network.
        settings: those of the build.
        image: what operations are counted for; by default the paper's.
        variances: layer name -> variance of every quantized layer, as the build would measure it
            (`planner.weights.layer.allocation_variance`). Without it all layers count as equal.

    Raises:
        UsageError: the target lies outside the settings' bounds, a pattern finds nothing or leaves
            nothing to quantize, or the image has no whole number of tokens.
        ValueError: a quantized layer has no variance.
    """
    image = image or ImageSettings()
    settings = replace(settings, variant=architecture.variant)
    tokens = architecture.count_tokens(image.resolution_px, image.text_tokens)
    active_tensors = find_active_tensors(architecture)
    linears = architecture.quantizable
    active = [name for name in linears if f"{name}.weight" in active_tensors]
    tabled = left_to_table(architecture, settings).layers.keys() & linears.keys()
    kept = settings.kept_layers(active, tabled)
    statistics = []
    for name in active:
        if name in kept or name in tabled:
            continue
        if variances is not None and name not in variances:
            raise ValueError(f"no variance for the quantized layer {name}")
        variance = 1.0 if variances is None else variances[name]
        out_features, in_features = linears[name]
        statistics.append(LayerStatistics(name, out_features * in_features, variance))
    bits = predicted_bits(statistics, settings, share_of_table(architecture, settings, image.steps))
    size, work = network_size(architecture), network_work(architecture, tokens)
    attention = architecture.family.attention_work(architecture.config, tokens)
    whole = Counter(size, work, attention, image.steps)
    own_work = network_work(architecture, tokens, {*kept, *tabled})
    tabled_macs = work.dense - network_work(architecture, tokens, tabled).dense
    own = Counter(
        own_size(architecture, settings, kept, image.steps),
        own_work,
        attention,
        image.steps,
        kept_macs=work.dense - own_work.dense - tabled_macs,
    )
    rank = settings.global_rank + settings.local_rank
    return Estimate(
        settings=settings,
        image=image,
        tokens=tokens,
        size=size,
        work=work,
        attention=attention,
        full_precision=whole.at(Target(32, 32), 0, FULL_ATTENTION),
        paper_ladder=whole.paper_ladder(),
        own=own.at(
            settings.target,
            rank,
            {"bits": HALF_PRECISION_BITS, "probability_bits": settings.softmax_bits},
        ),
        checkpoint=checkpoint_bytes(architecture),
        pack=pack_bytes(architecture, bits, active_tensors, settings, image.steps),
        distortion=predict_distortion(
            statistics, bits, settings.target.activation_bits, from_weights=variances is not None
        ),
        layers={
            layer.name: LayerEstimate(
                layer.parameters,
                bits[layer.name],
                decibels(gaussian_level(bits[layer.name]).mse),
            )
            for layer in sorted(statistics, key=lambda layer: layer.name)
        },
        mean_bits=mean_bits_over_work(
            bits,
            {layer.name: layer.parameters for layer in statistics},
            layer_macs(architecture, tokens),
            settings,
        ),
        runs=network_runs(
            architecture,
            settings,
            [layer.name for layer in statistics],
            image.steps,
            image.text_tokens,
        ),
        kept=tuple(sorted(kept)),
        modulation_layers=len(tabled),
        modulation_macs=tabled_macs,
        modulation_choices=modulation_choices(
            architecture, active_tensors, settings, kept, image.steps
        ),
    )
