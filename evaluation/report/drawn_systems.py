"""Answers of systems as they are drawn: decided by a policy, and their boxes as a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.choices import Choices, choose
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.drawn import DrawnSystem, decide
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.truth import Truth


def drawn_systems(comparison: Comparison) -> tuple[DrawnSystem, ...]:
    """Return the answers of the systems of a comparison, decided by its main policy.

    The joint system has the boxes of a member, and is not drawn.
    """
    truth, policy = comparison.truth, comparison.main_policy
    systems = {name: comparison.systems[name] for name in comparison.single}
    drawn = (_drawn(name, of.output, of.choices, policy, truth) for name, of in systems.items())
    return tuple(drawn)


def decided_system(name: str, output: Output, truth: Truth, policy: str) -> DrawnSystem:
    """Return the answers of a system, decided by a policy that validation images choose."""
    validation = truth.of("val")
    ran = validation.select(validation.ids.intersection(output.ran))
    return _drawn(name, output, choose(output, ran, [policy]), policy, truth)


def drawn_boxes(comparison: Comparison) -> pd.DataFrame:
    """Return the true boxes of the test images, and the boxes that are drawn of each system.

    `system` is empty for true boxes, which are those of images whose lesions all have one.
    """
    truth = comparison.truth
    true = truth.boxes[truth.boxes["image_id"].isin(truth.boxed)]
    tables = [true.assign(system="", score=np.nan)]
    for system in drawn_systems(comparison):
        shown = system.shown_boxes()
        if shown is not None:
            tables.append(shown.assign(system=system.name))
    columns = ["image_id", "system", *EDGES, "score"]
    table = pd.concat([each[columns] for each in tables], ignore_index=True)
    texts = dict.fromkeys(["image_id", "system"], object)
    return table.astype({**texts, **dict.fromkeys([*EDGES, "score"], np.float64)})


def _drawn(name: str, output: Output, choices: Choices, policy: str, truth: Truth) -> DrawnSystem:
    """Return the answers of a system, and if its point lies on a lesion where all have boxes."""
    decided = decide(name, output, choices, policy)
    hits = output.localised(truth.boxes)
    if hits is None:
        return decided
    table = decided.decisions
    positive = truth.images["label"].reindex(table.index) == 1
    localised = pd.Series(hits, table.index, dtype="boolean")
    known = positive & table.index.isin(truth.boxed)
    return replace(decided, decisions=table.assign(localised=localised.where(known)))
