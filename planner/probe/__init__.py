"""The sensitivity probe: how much noise in a layer, at a step, changes the final latent."""
