"""Second moments of what layers are fed, for rounding that goes by them (GPTQ)."""
