"""The lesion detectors (RetinaNet and others): networks, losses and boxes."""
