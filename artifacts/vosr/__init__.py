"""VOSR as a checkpoint and a pack hold it: names, shapes, configuration, rotary table."""
