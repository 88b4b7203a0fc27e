"""Studies beside a comparison; this folder can be deleted."""
