"""Everything that judges: decisions, metrics, statistics, overlays, report. No torch."""
