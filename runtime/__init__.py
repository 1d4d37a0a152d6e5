"""Runs packs: the network, its quantized layers, sampling and images. Never imports the planner."""
