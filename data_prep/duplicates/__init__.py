"""Near duplicates of images, and the groups of images of one patient."""
