"""Files that hold tensors, one kind each: their headers are read, and where each tensor lies."""
