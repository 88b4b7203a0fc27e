"""One thin module per `cxr` verb: the only room that sees all the others."""
