"""Reader studies: several readers, with and without a model."""
