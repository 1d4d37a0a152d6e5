"""The photos that the bundled model is trained and judged on: ``python -m training.photos``.

Debian packages and two Python libraries ship them; ``selection`` names each, ``gather`` unpacks
them into a cache outside the checkout, ``library`` reads the cache.
"""
