"""A run's folder: what is written there, complete or not at all, and read back."""
