"""How runs are trained: one, with its images and figures; many, for a sweep or a curve."""
