"""How runs are trained: one, with its images and figures; many, for a zoo, a sweep or a curve."""
