"""Repeatable measurements: ``python -m benchmarks.NAME --help``. None of them is a test."""
