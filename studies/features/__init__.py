"""Features of an encoder that another program computed, as a system of a comparison."""
