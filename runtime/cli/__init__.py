"""The command ``qrun``."""
