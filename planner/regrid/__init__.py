"""Another bit grid for a finished pack: read from a file, or changed layer by layer."""
