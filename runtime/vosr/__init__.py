"""The VOSR network."""
