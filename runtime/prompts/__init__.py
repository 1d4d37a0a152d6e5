"""From the text of a prompt to what the network is given of it."""
