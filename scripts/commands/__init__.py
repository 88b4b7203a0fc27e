"""One module for each `cxr` command, with the function of its name."""
