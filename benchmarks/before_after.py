"""A photo enlarged by bicubic interpolation, and by a pack, side by side.

    python -m benchmarks.before_after SMALL ENLARGED -o out/demo/before_after.jpg

SMALL is what was given to ``qrun upscale``, ENLARGED what it wrote.
"""

import argparse
from pathlib import Path

from PIL import Image

QUALITY = 92
"""Of JPEG."""


def side_by_side(source: Image.Image, result: Image.Image) -> Image.Image:
    """``source``, enlarged to the size of ``result``, to the left of it."""
    enlarged = source.convert("RGB").resize(result.size, Image.Resampling.BICUBIC)
    both = Image.new("RGB", (2 * result.width, result.height))
    both.paste(enlarged, (0, 0))
    both.paste(result.convert("RGB"), (result.width, 0))
    return both


def main() -> None:
    """Write the picture that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the small photo")
    parser.add_argument("result", type=Path, help="the enlarged one")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    with Image.open(arguments.source) as source, Image.open(arguments.result) as result:
        side_by_side(source, result).save(arguments.out, quality=QUALITY)


if __name__ == "__main__":
    main()
