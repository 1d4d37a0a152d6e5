"""Gather the photos that the bundled model is trained and judged on.

    python -m training.photos                  # into ~/.cache/qdit4sr/photos
    python -m training.photos --cache FOLDER   # .deb files that lie there are not fetched again

Needs Debian's ``apt-get download`` and ``dpkg-deb``; nothing is installed.
"""

import argparse
from collections import Counter
from pathlib import Path

from training.photos.gather import default_cache, gather


def main() -> None:
    """Gather and say what there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=default_cache())
    entries = gather(parser.parse_args().cache)
    megapixels = sum(entry.stored_px[0] * entry.stored_px[1] for entry in entries) / 1e6
    held_out = sum(entry.held_out for entry in entries)
    print(f"{len(entries)} photos, {megapixels:.0f} MP stored, {held_out} held out")
    for licence, count in Counter(entry.licence for entry in entries).most_common():
        print(f"{count:5} {licence}")


if __name__ == "__main__":
    main()
