"""Singular values with certificates, from matrices and products of factors."""
