"""An export predicts here without torch."""
