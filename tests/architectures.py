"""The architecture of a DiT4SR configuration, as tests need it."""

from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture


def dit4sr(config, variant="q"):
    return Architecture(FAMILY, config, variant)
