"""Measuring a model while it trains, without checkpoints."""
