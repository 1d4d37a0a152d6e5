"""What the backend and the number format around it change in a result.

    python -m benchmarks.quality.dtypes

One W4A4 pack (Q-DiT4SR, ranks 4 and 2, without a calibration), run by the reference in float32 and
by the backend `cpu` in float32 and in bfloat16. Prints the final latent's error against the
unquantized float32 network from the same noise, in dB, mean over crops; then the PSNR between the
VAE's pictures of the same latents in both number formats.
"""

from dataclasses import replace

import torch

from benchmarks.cases import psnr_db
from benchmarks.quality.measure import Bench
from benchmarks.quality.rows import Row
from benchmarks.quality.small_run import latent_error_db, start
from runtime.load import network_from_pack
from runtime.sampling.bit_schedule import BitSchedule
from runtime.upscale import decode_image

ROW = Row(
    "W4A4",
    "dtypes",
    "Q-DiT4SR without VaTMP",
    "Q-DiT4SR",
    recipe="q-dit4sr-no-vatmp",
    overrides={"global_rank": 4, "local_rank": 2},
)
CANDIDATES = (
    ("reference", torch.float32),
    ("cpu", torch.float32),
    ("cpu", torch.bfloat16),
)


def main() -> None:
    """Measure and print."""
    _, bench, maker = start(__doc__, crops=16)
    cpu = torch.device("cpu")
    with maker.pack(ROW) as pack:
        for backend, dtype in CANDIDATES:
            network = network_from_pack(pack, device=cpu, dtype=dtype, backend=backend)
            prompts = bench.pipeline.prompts.to(cpu, dtype)
            pipeline = replace(bench.pipeline, dtype=dtype, prompts=prompts)
            mean = latent_error_db(
                replace(bench, pipeline=pipeline), network, BitSchedule(pack.bit_grid)
            )
            print(f"{backend} {str(dtype).removeprefix('torch.'):9} {mean:6.2f} dB", flush=True)
    print(f"VAE, bfloat16 against float32: {vae_psnr_db(bench):.2f} dB")


def vae_psnr_db(bench: Bench) -> float:
    """Mean over crops."""
    wide, narrow = bench.pipeline, replace(bench.pipeline, dtype=torch.bfloat16)
    values = [
        psnr_db(
            *(
                decode_image(pipeline, encoded, latents[0], bench.settings).clamp(0, 1)
                for pipeline in (wide, narrow)
            )
        )
        for encoded, latents in zip(bench.encoded, bench.references, strict=True)
    ]
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
