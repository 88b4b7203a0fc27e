"""Errors, table schemas, reading and writing tables, folders, JSON, pseudonyms, words."""
