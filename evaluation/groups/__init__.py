"""Where each system fails: groups of images, and lesions."""
