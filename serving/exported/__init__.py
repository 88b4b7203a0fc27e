"""An export predicts here without torch, single images also without pandas."""
