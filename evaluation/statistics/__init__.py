"""Statistics of numpy arrays: variance by patient, bootstrap, intervals and tests."""
