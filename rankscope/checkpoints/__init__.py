"""Checkpoints on disk: runs, steps, and tensors by name, opened lazily."""
