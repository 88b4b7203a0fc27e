"""Rules by which another program computed its figure of boxes."""
