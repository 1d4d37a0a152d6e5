"""Source checkpoints, read one tensor at a time."""
