"""Packs on the Hugging Face Hub: their names, fetching, pushing."""
