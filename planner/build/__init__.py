"""From a checkpoint to a pack."""
