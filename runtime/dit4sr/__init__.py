"""The DiT4SR network."""
