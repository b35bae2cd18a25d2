"""Files that hold tensors, one module per kind: their headers are read, which say where each is."""
