"""Programs that damage inputs, kill commands and fill disks, and check what is left."""
