"""The report of a comparison: page, figures, tables, and the result object that a user holds."""
