"""What boxes buy: figures by the number of training images and of boxes."""
