"""Errors, table schemas, reading and writing tables, folders, pseudonyms, worker processes."""
