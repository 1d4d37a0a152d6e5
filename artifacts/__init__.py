"""What a pack means: codes, rotation, reference decoding, verified reading, atomic writing."""
