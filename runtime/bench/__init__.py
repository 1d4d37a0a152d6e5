"""How fast quantized layers are on the machine at hand, and against what: ``qrun bench``."""
