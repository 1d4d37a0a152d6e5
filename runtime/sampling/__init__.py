"""From noise to a latent: schedule of bits, tiles, settings, the sampling loop."""
