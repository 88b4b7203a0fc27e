"""One thin module per `cxr` verb, what verbs share, and `api` for Python. No room imports it."""
