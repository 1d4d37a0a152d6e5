"""How many bits a code may have. Nothing is imported here: ``--help`` goes through this module."""

UNQUANTIZED = 16
"""Bits of what is not quantized: a weight in bfloat16, a layer's input as it comes."""
BIT_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, UNQUANTIZED)
