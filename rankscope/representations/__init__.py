"""What the layers carry: numbers of features, the vectors that a layer outputs for each token."""
