"""Which matrices get a spectrum, and how each is formed from the tensors on disk."""
