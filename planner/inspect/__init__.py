"""What a pack says, and in what two packs differ."""
