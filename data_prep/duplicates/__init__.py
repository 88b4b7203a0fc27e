"""Which images belong together: near duplicates, and the images of one patient."""
