"""A trained run that predicts, also by several views of an image, and its guard."""
