"""Train the bundled model and write it as a diffusers folder.

    python -m training.photos                            # first: gather the photos
    python -m training autoencoder --out out/train
    python -m training decoder --out out/train           # trains the decoder on, any time
    python -m training network --out out/train           # --network names another shape
    python -m training export --out out/train --folder out/train/dit4sr-mini
    python -m training --device cuda                     # all of it, on a GPU
    python -m training refine --from MODEL --folder MODEL     # the decoder, for what it makes
    python -m training closing --from MODEL --folder OTHER    # its last steps, for the picture
    python -m training one-step --start artifacts/demo/dit4sr-mini --network dit4sr-mini-onestep

Stopped runs continue where they were, also with more --steps. States lie in --out, which should be
outside the checkout. --minutes stops a run after a wall time, with its state saved; --within plans
the whole run of decoder, network, refine or closing, each, for a wall time, the decay of the rate
included.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from artifacts.dit4sr.config import TransformerConfig
from training import closing, refined_decoder
from training.autoencoder import AutoencoderRun, load_autoencoder, train_autoencoder
from training.averages import Averages
from training.closing import CROPS_PX, ClosingRun, Newest, Source, in_turn, train_closing
from training.closing_states import ClosingStates, closing_strides
from training.command_line import parse_arguments
from training.crops import Crops
from training.decoder import DecoderRun, train_decoder
from training.export import write_folder, write_vae, write_weights
from training.features import missing_packages
from training.generated import Generated
from training.made_pool import MadePool
from training.network import (
    Loss,
    NetworkRun,
    Sizes,
    compile_blocks,
    new_network,
    train_network,
)
from training.networks import NETWORKS, NamedNetwork
from training.one_step import one_step_loss
from training.pairs import Samples, SizedShards
from training.photos.library import training_photos
from training.pool import LatentPool
from training.pulls import Pulls
from training.refined_decoder import RefineRun, refine_decoder
from training.sampled import GuidedModelError, TrainedNetwork
from training.schedule import Schedule, WarmupStableDecay, WithinTime
from training.shards import SHARD, make_shards

SEED = 0
CPU_STEPS = {
    "autoencoder": (2200, 900),
    "decoder": (4000, 2000),
    "network": (60_000, 10_000),
    "one-step": (8000, 3000),
    "refine": (6000, 2400),
    "closing": (1500, 500),
}
"""Steps in all and of the decay."""
GPU_STEPS = {
    "autoencoder": (12_000, 3000),
    "decoder": (12_000, 6000),
    "network": (60_000, 10_000),
    "one-step": (8000, 3000),
    "refine": (6000, 2400),
    "closing": (4000, 1500),
}
GPU_CLOSING_RATE = 2
"""How many times higher its learning rate is with a GPU's batches."""
GPU_BATCH = 8
"""How many times larger batches of the autoencoder are on a GPU."""
GPU_SIZES = Sizes(small_steps=0, cycle=(128, 192), pixels=1_179_648)
"""72 crops of 128 px or 32 of 192 px."""
USES = 4
"""How often a prepared sample is used on a processor."""


def main() -> None:
    """Run the stages that were asked for."""
    arguments = parse_arguments(__doc__)
    torch.set_num_threads(arguments.threads)
    try:
        _run(arguments)
    except GuidedModelError as error:
        sys.exit(str(error))


def _run(arguments: argparse.Namespace) -> None:
    have_their_own = ("autoencoder", "closing", "all")
    if arguments.stage not in have_their_own and not (arguments.out / "vae").is_dir():
        vae = arguments.out / "vae"
        sys.exit(f"no autoencoder in {vae}: train one, or copy training/autoencoder_weights there")
    if arguments.stage in ("autoencoder", "all") and not _autoencoder(arguments):
        return
    if arguments.stage in ("decoder", "all") and not _decoder(arguments):
        return
    if arguments.stage in ("network", "all") and not _network(arguments):
        return
    if arguments.stage == "one-step" and not _one_step(arguments):
        return
    if arguments.stage in ("export", "all"):
        _export(arguments)
    if arguments.stage == "refine":
        _refine(arguments, arguments.networks or [_exported(arguments)], arguments.folder)
    if arguments.stage == "closing":
        models = arguments.networks or [_exported(arguments)]
        if len(models) > 1:
            sys.exit(f"closing trains one model, and --from names {len(models)}")
        if arguments.folder and arguments.folder.resolve() == models[0].resolve():
            sys.exit("closing begins with the model of --from, which --folder must not change")
        _closing(arguments, models[0], arguments.folder)
    if arguments.stage == "all":
        exported = arguments.folder or _exported(arguments)
        refined = _refine(arguments, arguments.networks or [exported], exported)
        if refined and _named(arguments).start_sigma == 1:  # others have one step alone
            _closing(arguments, exported, exported)


def _steps(arguments: argparse.Namespace, stage: str) -> tuple[int, int]:
    """Steps in all and of the decay, from the command line or by default."""
    steps, decay = (CPU_STEPS if arguments.device.type == "cpu" else GPU_STEPS)[stage]
    return arguments.steps or steps, decay if arguments.decay is None else arguments.decay


def _on_cpu(arguments: argparse.Namespace) -> bool:
    return bool(arguments.device.type == "cpu")


def _batch_factor(arguments: argparse.Namespace) -> int:
    return 1 if _on_cpu(arguments) else GPU_BATCH


def _workers(arguments: argparse.Namespace) -> int:
    """Processes that prepare pictures; a processor that trains makes its own."""
    if _on_cpu(arguments):
        return 0
    return int(arguments.workers or max(1, (os.cpu_count() or 1) - 2))


def _autoencoder(arguments: argparse.Namespace) -> bool:
    steps, decay = _steps(arguments, "autoencoder")
    pixels = AutoencoderRun.pixels * _batch_factor(arguments)
    return train_autoencoder(
        Crops(training_photos(arguments.photos), SEED),
        arguments.out,
        AutoencoderRun(steps=steps, decay=decay, pixels=pixels),
        seed=SEED,
        device=arguments.device,
        minutes=arguments.minutes,
    )


def _decoder(arguments: argparse.Namespace) -> bool:
    run = DecoderRun(
        _schedule(arguments, "decoder"),
        pixels=DecoderRun.pixels * _batch_factor(arguments),
        workers=_workers(arguments),
    )
    return train_decoder(
        Crops(training_photos(arguments.photos), SEED),
        arguments.out,
        run,
        device=arguments.device,
        minutes=arguments.minutes,
    )


def _refine(arguments: argparse.Namespace, networks: Sequence[Path], folder: Path | None) -> bool:
    """Train the decoder on for what ``networks`` make; ``folder`` is a model that gets it.

    Returns whether the end was reached.

    What is in ``--out`` stays as it is, for other networks have other such decoders.
    """
    _check_exported(networks)
    pulls = _pulls(arguments, refined_decoder.PULLS)
    own = _network_folder(arguments)
    shutil.copytree(arguments.out / "vae", own / "vae", dirs_exist_ok=True)
    samples = make_shards(
        Generated,
        Crops(training_photos(arguments.photos), SEED),
        load_autoencoder(own, arguments.device),
        networks,
        arguments.shards,
        own / "generated",
        workers=_workers(arguments),
    )
    run = RefineRun(
        _schedule(arguments, "refine"),
        count=RefineRun.count * _batch_factor(arguments),
        pulls=pulls,
    )
    finished = refine_decoder(samples, own, run, device=arguments.device, minutes=arguments.minutes)
    if finished and folder:
        vae = load_autoencoder(own, torch.device("cpu"))
        write_vae(vae.to(torch.bfloat16), folder / "vae")
    return finished


def _pulls(arguments: argparse.Namespace, defaults: Pulls) -> Pulls:
    """Those that ``--pull`` names, and the others by default; asked before anything is made."""
    pulls = replace(defaults, **dict(arguments.pull))
    if pulls.features and (missing := missing_packages()):
        sys.exit(
            f"features need {' and '.join(missing)}, not installed here: pip install"
            " 'qdit4sr[train]', or leave them out with --pull features=0"
        )
    return pulls


def _check_exported(models: Sequence[Path]) -> None:
    for model in models:
        if not (model / "transformer").is_dir():
            sys.exit(f"no exported model in {model}: name one with --from")


def _closing(arguments: argparse.Namespace, model: Path, folder: Path | None) -> None:
    """Train the closing steps of a model's network on; ``folder`` is a model that gets it."""
    named = NETWORKS[arguments.network]
    _check_exported([model])
    written = json.loads((model / "transformer/config.json").read_bytes())
    config = TransformerConfig.from_diffusers(written)
    if config != named.config:
        sys.exit(f"{model} has another shape than {named.name}: say which with --network")
    if folder and not (folder / "transformer").is_dir():
        sys.exit(f"no exported model in {folder}, which --folder shall change: copy one there")
    sampler = TrainedNetwork.load(model, arguments.device)
    strides = closing_strides(sampler)
    if not strides:
        sys.exit(f"{model} samples in one step, and has no closing ones")
    vae = load_autoencoder(model, arguments.device)
    run = ClosingRun(
        named,
        _schedule(arguments, "closing"),
        count=ClosingRun.count * _batch_factor(arguments),
        learning_rate=ClosingRun.learning_rate * (1 if _on_cpu(arguments) else GPU_CLOSING_RATE),
        pulls=_pulls(arguments, closing.PULLS),
    )
    network = train_closing(
        _closing_source(arguments, sampler, model, vae),
        strides,
        model,
        vae,
        _network_folder(arguments),
        run,
        device=arguments.device,
        minutes=arguments.minutes,
    )
    if network and folder:
        write_weights(network, folder / "transformer")


def _closing_source(
    arguments: argparse.Namespace, sampler: TrainedNetwork, model: Path, vae: AutoencoderKL
) -> Source:
    """On a GPU samples that are made all the time, otherwise shards of both crop sizes."""
    crops = Crops(training_photos(arguments.photos), SEED)
    if not _on_cpu(arguments):
        compile_blocks(sampler.network)
        pool = MadePool(ClosingStates, crops, vae, sampler, workers=_workers(arguments))
        return Newest(pool, arguments.device)
    samples = [
        make_shards(
            ClosingStates,
            crops,
            vae,
            [model],
            arguments.shards,
            _network_folder(arguments) / f"closing{crop_px}",
            crop_px=crop_px,
            size=SHARD * CROPS_PX[0] ** 2 // crop_px**2,
        )
        for crop_px in CROPS_PX
    ]
    return in_turn(samples, arguments.device)


def _schedule(arguments: argparse.Namespace, stage: str) -> Schedule:
    if arguments.within is not None:
        return WithinTime(arguments.within, decay_share=arguments.decay_share)
    steps, decay = _steps(arguments, stage)
    return WarmupStableDecay(steps, decay=decay)


def _network_run(arguments: argparse.Namespace) -> NetworkRun:
    named = NETWORKS[arguments.network]
    schedule = _schedule(arguments, "one-step" if arguments.stage == "one-step" else "network")
    run = NetworkRun(named.config, named.seed, schedule, Sizes(), start=arguments.start)
    if not _on_cpu(arguments):
        run = replace(run, sizes=GPU_SIZES, optimizer="muon", save_every=10_000)
    return replace(run, optimizer=arguments.optimizer or run.optimizer)


def _samples(arguments: argparse.Namespace, run: NetworkRun) -> Samples:
    crops = Crops(training_photos(arguments.photos), run.seed)
    vae = load_autoencoder(arguments.out, arguments.device)
    if not _on_cpu(arguments):
        return LatentPool(crops, vae, workers=_workers(arguments))
    folder = _network_folder(arguments) / "pairs"
    return SizedShards(crops, vae, run.sizes.cycle, uses=USES, folder=folder)


def _network_folder(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.out / arguments.network
    return folder


def _network(arguments: argparse.Namespace, loss: Loss | None = None) -> bool:
    run = _network_run(arguments)
    training = train_network(
        _samples(arguments, run),
        _network_folder(arguments),
        run,
        device=arguments.device,
        minutes=arguments.minutes,
        loss=loss,
    )
    return training.finished


def _one_step(arguments: argparse.Namespace) -> bool:
    vae = load_autoencoder(arguments.out, arguments.device)
    return _network(arguments, partial(one_step_loss, vae, _named(arguments).start_sigma))


def _named(arguments: argparse.Namespace) -> NamedNetwork:
    """The network asked for, with the noise of ``--sigma``."""
    named = NETWORKS[arguments.network]
    return named if arguments.sigma is None else replace(named, start_sigma=arguments.sigma)


def _exported(arguments: argparse.Namespace) -> Path:
    """Where a model is exported to unless ``--folder`` says otherwise."""
    folder: Path = arguments.out / "exported" / arguments.network
    return folder


def _export(arguments: argparse.Namespace) -> None:
    named = _named(arguments)
    network = new_network(named.config, named.seed)
    state = torch.load(
        _network_folder(arguments) / "network.pt", map_location="cpu", weights_only=True
    )
    network.load_state_dict(state["model"])
    averages = Averages(network, [arguments.average])
    averages.load_state_dict(state["averages"])
    averages.copy_to(network, arguments.average)
    vae = load_autoencoder(arguments.out, torch.device("cpu"))
    folder = arguments.folder or _exported(arguments)
    write_folder(named, network, vae, folder)
    print(f"step {state['step']}, average of decay {arguments.average}: {folder}")


if __name__ == "__main__":
    main()
