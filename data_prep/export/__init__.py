"""Label files for other software."""
