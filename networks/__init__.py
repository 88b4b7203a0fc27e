"""What both models stand on: published weights, and networks that torchvision lacks."""
