"""Statistics of numpy arrays: variance by patient and reader, bootstrap, tests, calibration."""
