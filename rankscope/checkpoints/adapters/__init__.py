"""Low-rank factors on disk: which tensors make one matrix, and how it changes the weights."""
