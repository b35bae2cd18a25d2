"""Families of models: from a parameter's name to its coordinates, by tables that are data."""
