"""Runs scored step by step: from checkpoints and text to one table."""
