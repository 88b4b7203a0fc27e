"""Studies beside a comparison: readers, the rules of other programs, sizes of studies."""
