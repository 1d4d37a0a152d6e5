"""The base model: Stable Diffusion 3.5, whose autoencoder and text encoders DiT4SR shares."""
