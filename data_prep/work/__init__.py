"""Rows in processes or Ray, folders in object stores."""
