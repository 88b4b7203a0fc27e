"""Writers of label files for other software."""
