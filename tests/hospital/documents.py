"""Parts of this annex's pages that follow from the code; ``tools/documents.py`` writes them."""

from __future__ import annotations

import numpy as np

from cxr_compare.hospital.guarantee.guaranteed_threshold import patients_needed


def needed_table() -> str:
    """Return a table of the patients with one image each that a guarantee needs."""
    shares = (100, 99, 98, 96, 94)  # %
    lines = [
        f"| guarantee | {' | '.join(f'{share} %' for share in shares)} |",
        f"|---|{'---:|' * len(shares)}",
    ]
    for floor, sure in ((f, c) for f in (0.80, 0.90, 0.95) for c in (0.90, 0.95)):
        cells = []
        for share in shares:
            good = np.ones(100)  # what is missed lies evenly between
            good[((np.arange(100 - share) + 0.5) * 100 / max(1, 100 - share)).astype(int)] = 0
            count = patients_needed(good, np.ones(100, dtype=np.int64), floor, 1 - sure)
            cells.append("–" if np.isnan(count) else f"{count:,.0f}")
        lines.append(f"| `>={floor:.2f}@{sure:.2f}` | {' | '.join(cells)} |")
    return "\n".join(lines)


PARTS = {"docs/guarantees.md": {"patients needed": needed_table}}
