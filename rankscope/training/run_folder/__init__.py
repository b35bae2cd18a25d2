"""The folder of a run: files that are complete or absent, and what reads them back."""
