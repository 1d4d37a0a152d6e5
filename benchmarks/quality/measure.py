"""Sampling with one network after another, from the same noise, and what is read off the results.

Against the unquantized network's result from the same noise: the relative error of the final
latent in dB, whole and by octave of spatial frequency, and PSNR, FSIM and GMSD of the pictures.
Against the truth: PSNR, FSIM and PIQE. Every network shares the autoencoder, the prompts and the
control latents of the unquantized pipeline, so that nothing but the quantized layers differs.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.files.whole_file import replacing
from benchmarks.cases import Case, held_out_cases, psnr_db
from benchmarks.quality.intervals import relative_error_db
from benchmarks.quality.spectrum import octave_errors_db
from benchmarks.quality.store import key_of
from runtime.dit4sr.network import DiT4SR
from runtime.images.resizing import resize
from runtime.load import load_full_precision
from runtime.pipeline import Pipeline
from runtime.sampling.bit_schedule import BitsAt
from runtime.sampling.settings import UpscaleSettings
from runtime.upscale import EncodedImage, decode_image, encode_image, sample_latent

CASE_SEED = 2026
SEEDS_PER_CASE = 1000
"""Noise seed s of case i is i * 1000 + s: no two pictures start from the same noise."""

CPU = torch.device("cpu")

Values = dict[str, list[list[float]]]
"""Metric -> values of every case, one per noise seed."""
Progress = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""


@dataclass(frozen=True)
class Sampling:
    """How everything is sampled.

    Attributes:
        model: the checkpoint's folder.
        crops: number of held-out crops.
        crop_px: side of a crop's truth.
        seeds: noise seeds per crop.
        steps, guidance: of the sampler.
        pictures: whether pictures are decoded and measured beside the latents.
    """

    model: Path
    crops: int
    crop_px: int
    seeds: int
    steps: int
    guidance: float
    pictures: bool

    def key_parts(self) -> dict[str, object]:
        """All that a row's numbers depend on beside its network, as JSON values."""
        checkpoint = open_checkpoint(self.model)
        others = sorted(self.model.glob("vae/*")) + sorted(self.model.glob("*.*"))
        return {
            "source": sorted(file.sha256 for file in checkpoint.source_files()),
            "beside": [hashlib.sha256(file.read_bytes()).hexdigest() for file in others],
            "crops": self.crops,
            "crop_px": self.crop_px,
            "case_seed": CASE_SEED,
            "seeds": self.seeds,
            "steps": self.steps,
            "guidance": self.guidance,
            "pictures": self.pictures,
        }


class Metrics(Protocol):
    """Of pictures, [1, 3, H, W] in 0 ... 1."""

    def to_reference(self, picture: Tensor, reference: Tensor) -> dict[str, float]:
        """How near a picture is to the unquantized network's."""

    def to_truth(self, picture: Tensor, truth: Tensor) -> dict[str, float]:
        """How near a picture is to the truth."""


class PictureMetrics:
    """FSIM, GMSD and PIQE of pyiqa (extra ``eval``)."""

    def __init__(self) -> None:
        import pyiqa  # noqa: PLC0415  (an extra, and slow to import)

        cpu = torch.device("cpu")
        self._fsim, self._gmsd, self._piqe = (
            pyiqa.create_metric(name, device=cpu) for name in ("fsim", "gmsd", "piqe")
        )

    def to_reference(self, picture: Tensor, reference: Tensor) -> dict[str, float]:
        """How near a picture is to the unquantized network's, both [1, 3, H, W] in 0 ... 1."""
        return {
            "reference_psnr_db": psnr_db(picture, reference),
            "reference_fsim": float(self._fsim(picture, reference)),
            "reference_gmsd": float(self._gmsd(picture, reference)),
        }

    def to_truth(self, picture: Tensor, truth: Tensor) -> dict[str, float]:
        """How near a picture is to the truth; PIQE looks at the picture alone."""
        return {
            "truth_psnr_db": psnr_db(picture, truth),
            "truth_fsim": float(self._fsim(picture, truth)),
            "piqe": float(self._piqe(picture)),
        }


@dataclass
class Bench:
    """The unquantized pipeline, the cases and what the pipeline makes of them.

    Attributes:
        sampling: as asked for.
        pipeline: the unquantized network and all that every network shares.
        settings: of the sampler, without a seed.
        cases: the crops.
        encoded: every case's enlarged input and control latent.
        references: final latents of the unquantized network, [case][seed].
        metrics: of pictures; None when only latents are compared.
    """

    sampling: Sampling
    pipeline: Pipeline
    settings: UpscaleSettings
    cases: list[Case]
    encoded: list[EncodedImage]
    references: list[list[Tensor]]
    metrics: Metrics | None
    _pictures: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def sample(self, network: DiT4SR, bits_at: BitsAt, case: int, seed: int) -> Tensor:
        """The final latent of one case from one noise."""
        pipeline = replace(self.pipeline, network=network, bits_at=bits_at)
        settings = replace(self.settings, seed=case * SEEDS_PER_CASE + seed)
        return sample_latent(pipeline, self.encoded[case].control, settings).cpu()

    def picture(self, latent: Tensor, case: int) -> Tensor:
        """The picture of a latent, colours corrected as the model does by default."""
        there = latent.to(self.pipeline.device)
        return decode_image(self.pipeline, self.encoded[case], there, self.settings).clamp(0, 1)

    def reference_picture(self, case: int, seed: int) -> Tensor:
        """The unquantized network's picture."""
        if (case, seed) not in self._pictures:
            self._pictures[case, seed] = self.picture(self.references[case][seed], case)
        return self._pictures[case, seed]


def make_bench(
    sampling: Sampling, work: Path, progress: Progress, device: torch.device = CPU
) -> Bench:
    """Load the unquantized pipeline and sample all references, or read them from ``work``."""
    torch.backends.cudnn.allow_tf32 = False  # convolutions too are to be of float32
    pipeline = load_full_precision(sampling.model, device=device, dtype=torch.float32)
    settings = pipeline.sampling.override(
        patch_size=pipeline.patch_size, steps=sampling.steps, guidance=sampling.guidance
    )
    cases = held_out_cases(sampling.crops, sampling.crop_px, CASE_SEED)
    encoded = [encode_image(pipeline, case.small, settings) for case in cases]
    metrics = PictureMetrics() if sampling.pictures else None
    bench = Bench(sampling, pipeline, settings, cases, encoded, [], metrics)
    bench.references = _references(bench, work, progress)
    return bench


def measure(bench: Bench, network: DiT4SR, bits_at: BitsAt, progress: Progress) -> Values:
    """All values of one network."""
    values: Values = {}
    total = len(bench.cases) * bench.sampling.seeds
    for case, seed in _pictures(bench):
        latent = bench.sample(network, bits_at, case, seed)
        reference_latent = bench.references[case][seed]
        found = {"latent_db": relative_error_db(reference_latent, latent)}
        found |= octave_errors_db(reference_latent, latent)
        if bench.metrics is not None:
            picture = bench.picture(latent, case)
            reference = bench.reference_picture(case, seed)
            found |= bench.metrics.to_reference(picture, reference)
            found |= bench.metrics.to_truth(picture, bench.cases[case].truth)
        _add(values, found, case, len(bench.cases))
        progress(case * bench.sampling.seeds + seed + 1, total)
    return values


def measure_baselines(bench: Bench) -> dict[str, Values]:
    """The unquantized network's and bicubic pictures against the truth."""
    if bench.metrics is None:
        return {}
    full, bicubic = Values(), Values()
    for case, seed in _pictures(bench):
        truth = bench.cases[case].truth
        found = bench.metrics.to_truth(bench.reference_picture(case, seed), truth)
        _add(full, found, case, len(bench.cases))
        if seed == 0:
            plain = resize(bench.cases[case].small, truth.shape[-2:])
            _add(bicubic, bench.metrics.to_truth(plain, truth), case, len(bench.cases))
    return {"full-precision": full, "bicubic": bicubic}


def _pictures(bench: Bench) -> list[tuple[int, int]]:
    seeds = range(bench.sampling.seeds)
    return [(case, seed) for case in range(len(bench.cases)) for seed in seeds]


def _add(values: Values, found: Mapping[str, float], case: int, cases: int) -> None:
    for metric, value in found.items():
        values.setdefault(metric, [[] for _ in range(cases)])[case].append(round(value, 6))


def _references(bench: Bench, work: Path, progress: Progress) -> list[list[Tensor]]:
    """Final latents of the unquantized network, kept in ``work`` from one run to the next."""
    path = work / f"references.{key_of(bench.sampling.key_parts())}.safetensors"
    if not path.is_file():
        latents = {}
        places = _pictures(bench)
        for done, (case, seed) in enumerate(places, start=1):
            latents[f"{case}.{seed}"] = bench.sample(
                bench.pipeline.network, bench.pipeline.bits_at, case, seed
            )
            progress(done, len(places))
        with replacing(path) as partial:
            save_file(latents, partial)
    stored = load_file(path)
    seeds: Sequence[int] = range(bench.sampling.seeds)
    return [[stored[f"{case}.{seed}"] for seed in seeds] for case in range(len(bench.cases))]
