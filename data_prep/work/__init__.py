"""Where work runs and where bytes lie: rows in processes or Ray, folders in object stores."""
