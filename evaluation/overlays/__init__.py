"""Shapes on an image, and functions that draw them as SVG or PNG."""
