"""Speed beside plain programs."""
