"""`write_report`: page, figures, tables."""
