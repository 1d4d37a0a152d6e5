"""The pack: its files, what its JSON says of its tensors, verified reading, atomic writing."""
