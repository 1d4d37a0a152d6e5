"""What every network is built from: quantizable linear layers and how they are applied."""
