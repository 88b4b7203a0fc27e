"""Where two JSON values differ."""

from __future__ import annotations

import math
from typing import Any

_SAME = 1e-9


def first_difference(first: Any, second: Any, place: str = "") -> str | None:
    """The first place where two JSON values differ, `None` where they agree.

    Numbers may differ by the rounding of their last bits.

    Example:
        >>> first_difference({"a": [1, 2.0]}, {"a": [1, 2.5]})
        'a[1]: 2.0 against 2.5'
    """
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            found = first_difference(first.get(key), second.get(key), f"{place}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return next(
            (d for i, (a, b) in pairs if (d := first_difference(a, b, f"{place}[{i}]"))), None
        )
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (first, second))
    same = math.isclose(first, second, rel_tol=_SAME, abs_tol=_SAME) if numbers else first == second
    return None if same else f"{place}: {first} against {second}"
