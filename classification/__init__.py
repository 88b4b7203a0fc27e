"""The image classifier (CheXNet): its network, loss, scores and activation maps."""
