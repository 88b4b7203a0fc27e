"""Errors, table schemas, files, folders, pseudonyms, words."""
