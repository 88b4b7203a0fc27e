"""Number of processors that this process may use."""

import os


def usable_processors() -> int:
    """Return how many processors the system lets this process use; a scheduler may grant few.

    Example:
        >>> usable_processors() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
