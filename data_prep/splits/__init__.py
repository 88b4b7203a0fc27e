"""Splits of a data set by patient into roles (train, val, test) and folds."""
