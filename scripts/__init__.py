"""The command line: the commands of `cxr`, the checks of their arguments, and what they print."""
