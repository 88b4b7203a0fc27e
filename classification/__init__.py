"""The image classifier: CheXNet, its loss, scores and activation maps."""
