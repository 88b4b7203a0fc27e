"""One function a `cxr` verb, the runner that verbs share, and `load`. No room imports it."""
