"""Many runs of `cxr train`, for a sweep or a curve."""
