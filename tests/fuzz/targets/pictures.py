"""Small valid pictures in every format that is read, and in some that are not."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageCms
from PIL.ImageCms import createProfile

SIDE = 12


def pictures(*, seed: int = 0, height: int = SIDE, width: int = SIDE + 3) -> dict[str, bytes]:
    """Name with its format's extension -> content; of those whose name says EXIF, lying on a side.

    Args:
        seed: of all values.
        height, width: in px, before an orientation in EXIF.
    """
    return dict(_pictures(seed, height, width))


def _pictures(seed: int, height: int, width: int) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (height, width, 1), dtype=np.uint8)
    color, gray = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    clear = Image.fromarray(np.concatenate([rgb, alpha], axis=2))
    gray_clear = Image.fromarray(np.concatenate([rgb[..., :1], alpha], axis=2))
    palette = color.quantize(16)
    profile = ImageCms.ImageCmsProfile(createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a \x1b[31mred description"
    frames = {"save_all": True, "append_images": [color.rotate(90), color.rotate(180)]}

    for name, image, options in (
        *(("rgb", color, {}), ("gray", gray, {}), ("rgba", clear, {}), ("la", gray_clear, {})),
        *(("palette", palette, {}), ("clear-palette", palette, {"transparency": 3})),
        *(
            ("keyed", color, {"transparency": (1, 2, 3)}),
            ("profile", color, {"icc_profile": profile}),
        ),
        *(("bits", color.convert("1"), {}), ("exif", color, {"exif": exif})),
        *(("bad-profile", color, {"icc_profile": profile[:200]}), ("frames", color, frames)),
        ("deep-gray", Image.fromarray(rgb[..., 0].astype(np.uint16) * 257), {}),
    ):
        yield f"{name}.png", _saved(image, "PNG", options)
    deep = pyvips.Image.new_from_array(rgb.astype(np.uint16) * 257).copy(interpretation="rgb16")
    yield "deep.png", deep.pngsave_buffer()
    yield "deep-clear.png", deep.bandjoin(40000).pngsave_buffer()
    yield "interlaced.png", deep.pngsave_buffer(interlace=True)

    for name, image, options in (
        *(("rgb", color, {}), ("gray", gray, {}), ("progressive", color, {"progressive": True})),
        *(("cmyk", color.convert("CMYK"), {}), ("exif", color, {"exif": exif})),
        *(("profile", color, {"icc_profile": profile}), ("ycck", color, {"subsampling": 2})),
    ):
        yield f"{name}.jpg", _saved(image, "JPEG", options)

    for name, image, options in (
        *(("rgb", color, {}), ("rgba", clear, {}), ("gray", gray, {}), ("palette", palette, {})),
        *(("lzw", color, {"compression": "tiff_lzw"}), ("lab", color.convert("LAB"), {})),
        *(("deflate", color, {"compression": "tiff_adobe_deflate"}), ("pages", color, frames)),
        *(("cmyk", color.convert("CMYK"), {}), ("profile", color, {"icc_profile": profile})),
        *(("jpeg", color, {"compression": "jpeg"}), ("bits", color.convert("1"), {})),
        ("float", Image.fromarray(rgb[..., 0].astype(np.float32) / 255), {}),
        ("int", Image.fromarray(rgb[..., 0].astype(np.int32)), {}),
    ):
        yield f"{name}.tif", _saved(image, "TIFF", options)
    yield "deep.tif", deep.tiffsave_buffer()
    yield "tiled.tif", deep.tiffsave_buffer(tile=True, tile_width=16, tile_height=16)
    yield (
        "float-rgb.tif",
        (deep / 65535).cast("float").copy(interpretation="scrgb").tiffsave_buffer(),
    )
    yield "big.tif", deep.tiffsave_buffer(bigtiff=True)

    yield "rgb.webp", _saved(color, "WEBP", {})
    yield "lossless.webp", _saved(clear, "WEBP", {"lossless": True})
    yield "frames.webp", _saved(color, "WEBP", frames)
    yield "exif.webp", _saved(color, "WEBP", {"exif": exif, "icc_profile": profile})
    yield "rgb.gif", _saved(palette, "GIF", {})
    yield "clear.gif", _saved(palette, "GIF", {"transparency": 2})
    yield "frames.gif", _saved(color, "GIF", frames)
    yield "rgb.avif", _saved(color, "AVIF", {})
    yield "rgba.avif", _saved(clear, "AVIF", {})
    # Of these it is only asked that they are refused.
    yield "rgb.ppm", _saved(color, "PPM", {})
    yield "rgb.bmp", _saved(color, "BMP", {})
    yield "rgb.tga", _saved(color, "TGA", {})
    yield "rgb.jp2", _saved(color, "JPEG2000", {})
    yield "matrix.txt", b"2 2\n1 2\n3 4\n"
    yield "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
