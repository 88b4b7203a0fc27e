"""The lesion detector: RetinaNet, its loss and boxes."""
