"""Mutations of JSON texts and of bytes; all randomness comes from the generator that is given."""
