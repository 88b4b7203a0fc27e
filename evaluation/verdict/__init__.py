"""Conclusions from the figures: claims, Holm's correction, margin, cautions and the protocol."""
