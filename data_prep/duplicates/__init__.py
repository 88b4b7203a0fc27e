"""Near duplicates, and the images of one patient."""
