"""Roles and folds by patient."""
