"""One thin module per `cxr` verb, and what only verbs share. Nothing imports it."""
