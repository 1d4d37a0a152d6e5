"""Trains the bundled model ``dit4sr-mini`` from scratch: ``python -m training --help``.

Nothing here is needed to build or run packs; it is kept so that anyone can see what the bundled
weights are and make them again.
"""
