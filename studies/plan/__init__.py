"""Sample size: the number of patients that a study needs."""
