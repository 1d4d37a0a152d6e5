"""A page to try a model in: drop a photo, compare, download."""
