"""Batches on several machines, by Ray."""
