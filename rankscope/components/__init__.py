"""Which matrices get a spectrum, and how each is put together from what is on disk."""
