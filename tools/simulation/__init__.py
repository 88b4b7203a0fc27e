"""Simulations on generated data that measure how often reported intervals and tests are wrong."""
