"""The image classifier: CheXNet, its loss, batches, scores and activation maps."""
