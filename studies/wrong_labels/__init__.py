"""Wrong labels of the reference: what overturns an answer, and what the figures would be."""
