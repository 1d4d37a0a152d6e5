"""What files need to know of the toy: a checkpoint of two linear layers and a gain."""

from artifacts.family import NO_MODULATIONS, AttentionWork, Family, LatentSize, LinearShape
from schemas.errors import CheckpointError
from schemas.manifest import SamplingDefaults
from schemas.strict import StrictModel

LAYERS = ("expand", "contract")


class ToyConfig(StrictModel):
    """Latent channels, and the width between the two layers."""

    channels: int
    width: int


def tensor_shapes(config):
    return {
        "expand.weight": (config.width, 2 * config.channels),
        "expand.bias": (config.width,),
        "unused.weight": (1, 1),
        "contract.weight": (config.channels, config.width),
        "gain": (config.channels,),
    }


def config_from_shapes(path, shapes, _headers):
    if len(shapes["expand.weight"]) != 2:
        raise CheckpointError(f"{path}: expand.weight is not a matrix")
    width, inputs = shapes["expand.weight"]
    return ToyConfig(channels=inputs // 2, width=width)


FAMILY = Family(
    name="toy",
    title="Toy",
    variants=("plain", "loud"),
    config_type=ToyConfig,
    describe=lambda config: f"two layers of width {config.width}",
    licence_note="Nobody owns it.",
    presets={},
    sampling=SamplingDefaults(
        steps=3, guidance=1.0, shift=1.0, tile_latent=8, overlap_latent=2, min_side_px=16
    ),
    lacks=lambda shapes: [f"{name}.weight" for name in LAYERS if f"{name}.weight" not in shapes],
    is_base_model=lambda _shapes: False,
    config_from_shapes=config_from_shapes,
    tensor_shapes=tensor_shapes,
    quantizable=lambda config: {
        "expand": LinearShape(config.width, 2 * config.channels),
        "contract": LinearShape(config.channels, config.width),
    },
    unread_tensors=lambda _config, _variant: frozenset({"unused.weight"}),
    modulations=lambda _config: NO_MODULATIONS,
    rebuilt={},
    latent_size=lambda config: LatentSize(1, 64, config.channels),
    prompt_shapes=lambda _config, tokens: {"embeds": (tokens, 4), "pooled": (4,)},
    text_tokens=0,
    vae_factor=4,
    streams=lambda patches, _text: {"image": patches},
    tokens_through=lambda _name, streams: streams["image"],
    attention_work=lambda _config, _streams: AttentionWork(0, 0),
    runtime="tests.toy_family.network",
)
