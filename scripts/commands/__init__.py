"""The commands of `cxr`: one module each, which holds the function of the same name."""
