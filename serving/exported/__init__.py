"""An exported run: a folder that predicts without torch."""
