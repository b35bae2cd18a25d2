"""The results folder: tables, stores and the record; the one place where analyses meet figures."""
