"""Singular values with certificates, and the store that keeps them."""
