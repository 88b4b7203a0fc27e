"""Answers for images of an archive, sent back."""
