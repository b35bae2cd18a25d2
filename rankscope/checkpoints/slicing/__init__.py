"""Checkpoints that a parallel training saved in slices: found by name, opened, and joined."""
