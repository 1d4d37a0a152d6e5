"""The autoencoder (VAE) beside a transformer: its configuration, its tensors, its checked files."""
