"""Where and how processes run: memory, threads, devices, child processes, a Ray cluster."""
