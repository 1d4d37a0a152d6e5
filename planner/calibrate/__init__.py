"""What the network's layers are fed, measured on a few images."""
