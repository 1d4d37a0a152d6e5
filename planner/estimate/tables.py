"""The tables of ``qplan estimate``.

The paper's way of counting and the true figures stand beside each other, each under its own
heading; `planner.estimate.accounting` explains the difference.
"""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.estimate.costs import (
    PAPER_ACTIVATION_BITS,
    PAPER_GLOBAL_RANK,
    PAPER_LOCAL_RANKS,
    ladder_key,
)
from planner.estimate.result import Estimate
from planner.estimate.stored_bytes import PROMPTS
from planner.settings import BuildSettings
from schemas.bit_widths import UNQUANTIZED


def _millions(value: float) -> str:
    return f"{value / 1e6:,.2f}"


def _giga(value: float) -> str:
    return f"{value / 1e9:,.0f}"


def _giga_fine(value: float) -> str:
    return f"{value / 1e9:,.2f}"


def _decibel_text(value_db: float | None) -> str:
    return "without error" if value_db is None else f"{value_db:.2f} dB"


def _new_table(*columns: str) -> Table:
    """A table whose cells never break; the first column holds labels, the others numbers."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _section(heading: str, table: Table, *notes: str) -> Group:
    return Group(Text(heading, style="bold"), table, *(Text(note, style="dim") for note in notes))


def _row_label(local_rank: int) -> str:
    return f"r_L {local_rank}" if local_rank else "no factors"


def _ladder_section(result: Estimate) -> Group:
    table = _new_table(
        "",
        "Params M",
        "Ops G\nW4A4",
        "Ops G\nW4A6",
        "FLOPs G\nW4A4",
        "FLOPs G\nW4A6",
    )
    full = result.full_precision
    operations = _giga(full.paper_operations)
    table.add_row(
        "full precision", _millions(full.paper_parameters), operations, operations, "", ""
    )
    for local_rank in (0, *PAPER_LOCAL_RANKS):
        a4, a6 = (
            result.paper_ladder[ladder_key(bits, local_rank)] for bits in PAPER_ACTIVATION_BITS
        )
        table.add_row(
            _row_label(local_rank),
            _millions(a4.paper_parameters),
            _giga(a4.paper_operations),
            _giga(a6.paper_operations),
            _giga_fine(a4.paper_flops),
            _giga_fine(a6.paper_flops),
        )
    return _section(
        f"Paper convention: W4, r_G {PAPER_GLOBAL_RANK}, factors counted at the low width",
        table,
        "Params: fp32 equivalents. Ops: all steps, scaled by bits x bits / (32 x 32).",
        "FLOPs: one pass, scaled by bits x bits / (16 x 16). Linears alone, like Ops.",
    )


def _true_section(result: Estimate) -> Group:
    table = _new_table(
        "",
        "W4A4 G\nlinears",
        "fewer\nby",
        "\ntotal",
        "fewer\nby",
        "W4A6 G\nlinears",
        "fewer\nby",
        "\ntotal",
        "fewer\nby",
    )
    for local_rank in (0, *PAPER_LOCAL_RANKS):
        row = [_row_label(local_rank)]
        for bits in PAPER_ACTIVATION_BITS:
            costs = result.paper_ladder[ladder_key(bits, local_rank)]
            row += [
                _giga(costs.true_operations),
                f"{costs.true_reduction:.0f}x",
                _giga(costs.total_operations),
                f"{costs.total_reduction:.0f}x",
            ]
        table.add_row(*row)
    full = result.full_precision
    attention = result.paper_ladder[ladder_key(PAPER_ACTIVATION_BITS[0], 0)].attention_operations
    return _section(
        "True bit operations of the same settings: factors and attention at 16 x 16 bits",
        table,
        f"Total: with {_giga(attention)} G of attention, which the paper's table leaves out.",
        "Fewer than at full precision, 32 x 32 bits, of which bf16 needs a quarter:",
        f"linears {_giga(full.true_operations)} G, attention {_giga(full.attention_operations)} G,"
        f" total {_giga(full.total_operations)} G.",
    )


def _target_section(result: Estimate) -> Group:
    own, image = result.own, result.image
    table = _new_table("", "paper convention", "true")
    paper_ratio = result.size.parameters / own.paper_parameters
    true_ratio = result.checkpoint.parameters / result.pack.total
    table.add_row(
        "size on disk",
        f"{_millions(own.paper_parameters)} M params",
        f"{_millions(result.pack.total)} MB",
    )
    table.add_row("smaller by", f"{paper_ratio:.2f}x", f"{true_ratio:.2f}x")
    table.add_row(
        "operations of linears",
        f"{_giga(own.paper_operations)} G",
        f"{_giga(own.true_operations)} G",
    )
    table.add_row("linears fewer by", f"{own.paper_reduction:.0f}x", f"{own.true_reduction:.0f}x")
    table.add_row("operations of attention", "not counted", f"{_giga(own.attention_operations)} G")
    table.add_row("operations in total", "", f"{_giga(own.total_operations)} G")
    table.add_row("total fewer by", "", f"{own.total_reduction:.0f}x")
    table.add_row("FLOPs of one pass", f"{_giga_fine(own.paper_flops)} G", "")
    return _section(
        f"Your target: {_settings_text(result.settings)}",
        table,
        f"{_counted(image.steps, 'step')} at {image.resolution_px} px, {image.text_tokens}"
        f" {'text' if 'text' in result.tokens else 'feature'} tokens, one pass per step.",
        f"Multiply-accumulates of a pass: linears {result.work.dense / 1e9:,.1f} G, attention"
        f" {result.attention.macs / 1e9:,.1f} G.",
        "Smaller than full precision by parameters (paper), than bf16 by bytes (true).",
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _settings_text(settings: BuildSettings) -> str:
    ranks = f"r_G {settings.global_rank}, r_L {settings.local_rank}"
    parts = [
        str(settings.target),
        f"recipe {settings.recipe}",
        ranks if settings.global_rank or settings.local_rank else "no factors",
        "" if settings.softmax_bits == UNQUANTIZED else f"softmax {settings.softmax_bits} bits",
        f"variant {settings.variant}",
    ]
    return ", ".join(filter(None, parts))


def _bytes_section(result: Estimate) -> Group:
    pack, checkpoint = result.pack, result.checkpoint
    table = _new_table("", "MB")
    table.add_row("bf16 checkpoint", _millions(checkpoint.parameters))
    table.add_row(
        "bf16 checkpoint with position table",
        _millions(checkpoint.parameters + checkpoint.position_table),
        end_section=True,
    )
    table.add_row("pack: codes", _millions(pack.codes))
    vectors = (
        "scales, smoothing, signs" if result.settings.smoothing != "none" else "scales and signs"
    )
    table.add_row(f"pack: {vectors}", _millions(pack.scales + pack.rotation_signs))
    table.add_row("pack: global factors", _millions(pack.global_factors))
    table.add_row("pack: local factors, at most", _millions(pack.local_factors))
    table.add_row("pack: unquantized tensors", _millions(pack.unquantized))
    if pack.modulation_table:
        table.add_row("pack: table of modulations", _millions(pack.modulation_table))
    table.rows[-1].end_section = True
    table.add_row("pack in total, at most", _millions(pack.total))
    choices = result.modulation_choices
    for choice, total in choices.items():
        table.add_row(f"with --modulation {choice}", _millions(total))
    return _section(
        "True bytes on disk (tensor data)",
        table,
        "Local factors: the whole budget of Eq. 7; the blocks chosen may take less.",
        "Left out: inactive tensors, and the position table, which can be rebuilt.",
        *_modulation_notes(result),
    )


def _modulation_notes(result: Estimate) -> list[str]:
    if not result.modulation_choices:
        return []
    steps = result.image.steps
    notes = [f"A table of modulations holds {PROMPTS} prompts at {steps} steps."]
    if result.modulation_layers:
        notes.append(
            f"It replaces {result.modulation_layers} block linears, which saves"
            f" {result.modulation_macs / 1e9:,.2f} G of a pass."
        )
    return notes


def _bits_section(result: Estimate) -> Group:
    distortion = result.distortion
    table = _new_table("weight bits", "layers", "weights M", "SNR dB")
    for bits in sorted({layer.weight_bits for layer in result.layers.values()}):
        same = [layer for layer in result.layers.values() if layer.weight_bits == bits]
        table.add_row(
            str(bits),
            str(len(same)),
            _millions(sum(layer.parameters for layer in same)),
            f"{same[0].snr_db:.2f}",
        )
    active = len(result.layers) + len(result.kept) + result.modulation_layers
    kept = (f"{len(result.kept)} of them stay in 16 bits, as asked.",) if result.kept else ()
    return _section(
        f"Predicted bits and distortion: {active} of {result.size.linears} block"
        " linears are active",
        table,
        *kept,
        f"Weights {_decibel_text(distortion.weights_db)}, activations"
        f" {_decibel_text(distortion.activations_db)}, a layer's output"
        f" {_decibel_text(distortion.layer_output_db)}.",
        _model_text(result.settings),
        *_work_text(result),
        _bits_text(result),
    )


def _runs_section(result: Estimate) -> Group:
    table = _new_table("", "pictures", "passes a step", "TFLOP")
    for what, run in result.runs.items():
        tera = f"{run.operations / 1e12:,.1f}"
        table.add_row(what, str(run.pictures), str(run.passes), tera)
    return _section(
        f"What a build runs the network for, at {_counted(result.image.steps, 'step')}",
        table,
        "Tiles, autoencoder as published; two operations for a multiply-accumulate.",
        *(("A calibration needs pictures: --calib.",) if "calibration" in result.runs else ()),
    )


def _work_text(result: Estimate) -> tuple[str, ...]:
    """Mean bits over multiply-accumulates, beside those over weights."""
    mean = result.mean_bits
    lines = [
        f"Mean weight bits {mean.weights:.2f}; over multiply-accumulates {mean.weights_by_work:.2f}"
    ]
    if mean.bit_operations is None:
        return (f"{lines[0]}.", "A build's probe decides activations: mean bits over work unknown.")
    return (
        f"{lines[0]}, of activations {mean.activations_by_work:.2f}:",
        f"{mean.bit_operations:.2f} bit operations for each, 256 in 16 bits.",
    )


def _model_text(settings: BuildSettings) -> str:
    if not settings.rotation or "absmax" in (settings.weight_scale, settings.activation_scale):
        return "Gaussian model: unrotated values and absmax scales err more than it says."
    factors = settings.global_rank or settings.local_rank
    return f"Gaussian model{', without what the factors gain' if factors else ''}."


def _bits_text(result: Estimate) -> str:
    if result.settings.weight_allocation == "uniform":
        return "Uniform: every layer has the target's weight bits."
    if not result.distortion.from_weights:
        return "No weights read: all layers count as having the same variance."
    if result.settings.weight_statistic == "residual":
        return "Bits follow the variances of what the factors leave of the weights."
    return "Bits follow the variances of the weights."


def render(result: Estimate) -> Group:
    """Lay ``result`` out as tables within 80 columns, rich's width in a pipe: nothing breaks."""
    return Group(
        f"{_millions(result.size.parameters)} M parameters, of which {result.size.linears} block"
        f" linears hold {_millions(result.size.linear_parameters)} M\n",
        _ladder_section(result),
        "",
        _true_section(result),
        "",
        _target_section(result),
        "",
        _bytes_section(result),
        "",
        _bits_section(result),
        *(("", _runs_section(result)) if result.runs else ()),
    )
