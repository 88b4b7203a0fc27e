"""Parallel work in processes or a Ray cluster, and folders in object stores."""
