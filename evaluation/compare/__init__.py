"""`compare_systems`: scorecards, intervals, paired tests, verdict, failure analysis."""
