"""Watching runs while they train: from checkpoints as they appear to the table."""
