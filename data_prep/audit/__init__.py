"""Checks of a data set for everything that makes results wrong, and the page of the audit."""
