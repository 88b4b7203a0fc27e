"""Splits of a data set into roles and folds by patient."""
