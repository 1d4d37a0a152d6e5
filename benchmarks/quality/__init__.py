"""Quantization recipes compared on the bundled model: ``python -m benchmarks.quality --help``.

`rows` says what is compared, `packs` and `peers` make the networks, `measure` runs them, `store`
keeps finished rows, `intervals` does the statistics, `report` and `plots` show the results;
`layers` explains them layer by layer.
"""
