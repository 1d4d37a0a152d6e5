"""DiT4SR as a checkpoint and a pack hold it: names, shapes, configuration, position table."""
