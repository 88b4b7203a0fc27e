"""The page and the HTTP interface of `cxr serve`."""
