"""Reader studies: several readers by several modalities, and readers against systems."""
