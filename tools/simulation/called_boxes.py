"""Boxes without scores, by the public comparison: ``python -m tools.simulation.called_boxes``.

Its words are the kind (``many``, ``one``, ``mixed``, ``moved``), patients, images of a patient,
sets and seed, such as ``many 60 1-3 400 7``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from tools.simulation.designs import Drawn, Known, report_of
from tools.simulation.draw import SIDE, Law, draw_boxes

CALLED = 0.5
"""Score from which a drawn box is given."""
SHIFT = 0.35
"""Share of its sides by which a box of the kind ``moved`` lies beside that of the first system."""
FIGURES = (
    "f1",
    *(f"box_{name}" for name in ("f1_50", "precision_50", "recall_50")),
    "mean_iou",
    "localised_sensitivity",
    "pointing_accuracy",
)


def drawn(rng: np.random.Generator, law: Law, kind: str) -> Drawn:
    """Draw two equal systems, but for the kind ``moved``, whose boxes have no scores.

    One box an image has the kind ``one``; of the kind ``mixed`` the first system has scores.
    """
    images = draw_boxes(rng, law, law.patients)
    ids = np.array([f"i{number:05d}" for number in range(len(images.sample.positive))])
    truth = pd.DataFrame({"image_id": ids, "label": images.sample.positive.astype(int)})
    truth["patient_id"] = [f"p{number}" for number in images.sample.patients]
    systems = {}
    for name, boxes in zip("AB", images.boxes, strict=True):
        given = boxes[boxes["score"] >= CALLED]
        if kind == "one":
            given = given.sort_values("score", ascending=False).drop_duplicates("image")
        if kind == "moved" and name == "B":
            corners = given[EDGES].to_numpy()
            steps = SHIFT * (corners[:, 2:] - corners[:, :2])
            steps *= rng.choice([-1, 1], (len(corners), 1))
            corners = np.clip(corners + np.tile(steps, 2), 0, SIDE)
            given = given.assign(**dict(zip(EDGES, corners.T, strict=True)))
            given = given[(given["x2"] > given["x1"] + 1) & (given["y2"] > given["y1"] + 1)]
        systems[name] = given.assign(image_id=ids[given["image"]]).drop(columns="image")
        if kind != "mixed" or name == "B":
            systems[name] = systems[name].drop(columns="score")
    lesions = images.lesions.assign(image_id=ids[images.lesions["image"]]).drop(columns="image")
    options = {"boxes": lesions, "policy": f"threshold={CALLED}"}
    return Drawn(systems, truth.assign(width=SIDE, height=SIDE), Known({}), options)


def counted(kind: str, law: Law, sets: int, seed: int) -> Iterator[str]:
    """Yield a line for each figure, and one for each claim that was made."""
    rng = np.random.default_rng(99)
    large = Law(patients=1500, images=law.images)
    known = [report_of(drawn(rng, large, kind), 100).figures for _ in range(4)]
    of_systems = pd.concat(known).query("second == ''").groupby(["first", "metric"])["estimate"]
    true = of_systems.mean()
    rng = np.random.default_rng(seed)
    missed: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for _ in range(sets):
        result = report_of(drawn(rng, law, kind), 1000)
        rows = result.figures[result.figures["metric"].isin(FIGURES)]
        rows = rows[rows["first"].isin([*"AB"]) & rows["second"].isin(["", *"AB"])]
        for row in rows[rows["ci_low"].notna()].itertuples():
            value = true[row.first, row.metric]
            value -= true[row.second, row.metric] if row.second else 0
            name = f"difference in {row.metric}" if row.second else row.metric
            asked[name] += 1
            missed[name] += not row.ci_low <= value <= row.ci_high
        made = {claim.metric for claim in result.answer.claims if claim.higher}
        shown.update([*made, *(["any primary"] if made & {"f1", "box_f1_50"} else [])])
    for name, of in asked.items():
        yield f"{name}: {100 * missed[name] / of:.1f} % of {of} intervals miss"
    for name, count in shown.items():
        yield f"{name}: {100 * count / sets:.1f} % of {sets} sets show a difference"


if __name__ == "__main__":
    which, patients, images, n_sets, stream = sys.argv[1:]
    law = Law(patients=int(patients), images=images)
    print("\n".join(counted(which, law, int(n_sets), int(stream))))
