"""A trained run, or an export of it, that predicts; its guard, and the proof of an export."""
