"""What is wrong with a data set, and its page."""
