"""`prepare` and `combine`: from a source to a complete data set folder."""
