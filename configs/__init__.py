"""Typed training configurations and their TOML files."""
