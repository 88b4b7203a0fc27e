"""The public functions, one a module: `cxr` and Python call them alike; four modules serve them."""
