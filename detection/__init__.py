"""The lesion detector: RetinaNet with a feature pyramid, its loss, batches and boxes."""
