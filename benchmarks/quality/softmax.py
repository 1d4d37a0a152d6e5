"""What attention probabilities of 8 bits cost.

    python -m benchmarks.quality.softmax

The bundled model unquantized, and two packs of it (Q-DiT4SR without VaTMP, ranks 4 and 2), with
probabilities as they are, of 8 bits with a step for every row, as `--softmax-bits 8` has them, and
of 8 bits with the same step 1/255 everywhere. Prints the final latent's error against the
unquantized network from the same noise, in dB, mean over crops, and what the 8 bits change in it,
with a 95 % interval over crops.
"""

import torch
from torch import Tensor

from artifacts.checkpoint.reader import open_checkpoint
from benchmarks.quality.intervals import Table, paired_difference, per_image
from benchmarks.quality.measure import Bench, measure
from benchmarks.quality.packs import BACKEND
from benchmarks.quality.rows import Row
from benchmarks.quality.small_run import MODEL, start
from runtime.load import network_from_checkpoint, network_from_pack
from runtime.network import attention
from runtime.network.attention import set_softmax_bits
from runtime.network.family import LatentNetwork
from runtime.sampling.bit_schedule import BitsAt, BitSchedule
from schemas.bit_widths import UNQUANTIZED

TARGETS = ("W4A4", "W8A8")
CPU = torch.device("cpu")


def row(target: str) -> Row:
    """The pack at one target."""
    return Row(
        target,
        "softmax",
        "Q-DiT4SR without VaTMP",
        "Q-DiT4SR",
        recipe="q-dit4sr-no-vatmp",
        overrides={"global_rank": 4, "local_rank": 2},
    )


def fixed_step_attention(q: Tensor, k: Tensor, v: Tensor, probability_bits: int) -> Tensor:
    """Attention whose probabilities all have the step ``1 / (2^b - 1)``."""
    highest_code = 2**probability_bits - 1
    scores = q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5
    codes = (scores.softmax(-1) * highest_code).round()
    return (codes @ v.float() / highest_code).to(v.dtype)


def main() -> None:
    """Measure and print."""
    _, bench, maker = start(__doc__, crops=16)
    plain = network_from_checkpoint(open_checkpoint(MODEL), None, device=CPU, dtype=torch.float32)
    compare("unquantized", bench, plain, lambda _timestep: {})
    for target in TARGETS:
        with maker.pack(row(target)) as pack:
            network = network_from_pack(pack, device=CPU, dtype=torch.float32, backend=BACKEND)
            compare(target, bench, network, BitSchedule(pack.bit_grid))


def compare(name: str, bench: Bench, network: LatentNetwork, bits_at: BitsAt) -> None:
    """Print the lines of one network."""
    set_softmax_bits(network, UNQUANTIZED)
    before = measured_db(bench, network, bits_at)
    exact = name == "unquantized"  # which has no error to itself
    if not exact:
        print(f"{name:12} softmax 16 bits              {mean_db(before):6.2f} dB", flush=True)
    set_softmax_bits(network, 8)
    own = attention.quantized_attention
    for label, function in (("step by row", own), ("step 1/255", fixed_step_attention)):
        attention.quantized_attention = function
        try:
            after = measured_db(bench, network, bits_at)
        finally:
            attention.quantized_attention = own
        line = f"{name:12} softmax  8 bits, {label:12} {mean_db(after):6.2f} dB"
        change = paired_difference(after, before)
        print(
            line if exact else f"{line}, {change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"
        )


def measured_db(bench: Bench, network: LatentNetwork, bits_at: BitsAt) -> Table:
    """The latents' errors, by crop and noise."""
    values: Table = measure(bench, network, bits_at, lambda _done, _total: None)["latent_db"]
    return values


def mean_db(values: Table) -> float:
    """Mean over crops of the mean over noises."""
    return float(per_image(values).mean())


if __name__ == "__main__":
    main()
