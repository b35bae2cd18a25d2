"""Runs measured step by step: from checkpoints and text to tables of what the layers carry."""
