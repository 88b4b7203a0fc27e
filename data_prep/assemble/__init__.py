"""`prepare` and `combine`, which make a data set folder from a source or from other data sets."""
