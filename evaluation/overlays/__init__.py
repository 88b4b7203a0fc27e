"""Shapes on an image, and drawing them as SVG or PNG."""
