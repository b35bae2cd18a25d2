"""Shared by spectra and scores: plans, execution against a store, and the surrounding call."""
