"""The command ``qplan``."""
