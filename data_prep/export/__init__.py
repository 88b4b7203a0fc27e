"""Writers of label files for other programs."""
