"""Answers for images of a hospital's archive, which are sent back to it."""
