"""The codes: scalar quantizer, bit planes, rotation, and the decoder that gives them meaning."""
