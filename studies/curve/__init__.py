"""Learning curves: figures by the number of training images and of boxes."""
