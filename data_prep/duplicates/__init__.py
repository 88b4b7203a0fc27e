"""Near duplicates of images, and groups of images that belong to one patient."""
