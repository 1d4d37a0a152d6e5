"""Section 4 of Q-DiT4SR on networks that are at hand: its tables and figures by one command."""
