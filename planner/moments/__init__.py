"""Second moments of what layers are fed, for builds that quantize by them."""
