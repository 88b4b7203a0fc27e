"""What the figures show: claims, Holm's correction, margin, cautions and the protocol."""
