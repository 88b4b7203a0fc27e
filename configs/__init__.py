"""Typed training configurations and the TOML files that fill them."""
