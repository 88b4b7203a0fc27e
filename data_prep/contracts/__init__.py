"""Errors, schemas of tables and records, files, locks, provenance and pseudonyms."""
