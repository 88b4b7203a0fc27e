"""Rates of the exit statuses of a gate: ``python -m tools.simulation.gate [SETS]``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np

from cxr_compare.evaluation.verdict.margin import GATE_STATUS, gate_of
from tools.simulation.__main__ import interval
from tools.simulation.designs import Drawn, margin_decisions, scores
from tools.simulation.draw import Law

MARGIN = 0.05
REFERENCE = 0.85
PATIENTS = (150, 300, 1000)
GAPS = (0.0, 1.0, 2.0)
"""Margins by which the candidate is worse."""


def drawn_sets(patients: int, gap: float, n_sets: int) -> Iterator[Drawn]:
    """Yield sets of a reference and a candidate that is worse by so many margins."""
    rng = np.random.default_rng((patients, int(gap)))
    law = Law((REFERENCE, REFERENCE - gap * MARGIN), patients, images="1-3")
    for _ in range(n_sets):
        yield scores(rng, law, margin=MARGIN)


def status_of(drawn: Drawn) -> int:
    """Return the exit status of a gate, with the functions that `compare` calls."""
    decisions = margin_decisions(drawn, 0).values()
    return GATE_STATUS[gate_of(decisions)]


def table(n_sets: int) -> list[str]:
    """Return rows of a Markdown table: percentages of each status, with the wrong one's bound."""
    rows = ["| test patients | the candidate is | 0 | 1 | 4 |", "|---|---|---|---|---|"]
    for patients in PATIENTS:
        for gap in GAPS:
            counts = Counter(map(status_of, drawn_sets(patients, gap, n_sets)))
            wrong = 1 if gap == 0 else 0
            cells = []
            for status in GATE_STATUS.values():
                bound = f" (at most {interval(counts[status], n_sets)[1]:.1f})"
                share = f"{100 * counts[status] / n_sets:.1f}"
                cells.append(share + (bound if status == wrong else ""))
            said = {0.0: "equal", 1.0: "worse by the margin", 2.0: "worse by two margins"}[gap]
            rows.append(f"| {patients:,} | {said} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    print("\n".join(table(*map(int, sys.argv[1:2] or ["600"]))))
