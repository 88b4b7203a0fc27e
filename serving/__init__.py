"""The reading page and the HTTP API: reserved; its arrows are guarded from the start."""
