"""`prepare` and `combine`: from a source to a data set folder."""
