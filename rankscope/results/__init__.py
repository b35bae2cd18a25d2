"""The results folder: tables, stores and records, where analyses and figures meet."""
