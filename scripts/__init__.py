"""The command line: what `cxr` checks, runs and prints."""
