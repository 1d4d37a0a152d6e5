"""Reading and writing files: safetensors, whole-or-not-at-all replacement, one writer at a time."""
