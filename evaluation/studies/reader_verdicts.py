"""The verdict of a comparison by each reader's labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit


def evaluate_by_readers(
    comparison: Comparison, test_set: LabelledSplit, evaluate: Callable[[LabelledSplit], Comparison]
) -> Comparison:
    """Evaluate the same systems by each reader's labels of the test images.

    Predictions and decisions are unchanged: validation images keep the reference's labels.

    Args:
        comparison: The comparison by the reference's labels.
        test_set: Its test images.
        evaluate: Compares the systems on a test set.

    Returns:
        The comparison with the table ``by_reader`` and a note on the verdicts.
    """
    dataset = test_set.dataset
    test = test_set.image_ids("test")
    rows: list[dict[str, Any]] = []
    for reader in (REFERENCE_READER, *dataset.readers):
        own = replace(test_set, dataset=dataset.with_labels_of(reader, test))
        if not own.labels_of("test").notna().any():
            continue  # this reader read none of them
        evaluated = comparison if reader == REFERENCE_READER else evaluate(own)
        labels = evaluated.decisions.drop_duplicates("image_id")["label"]
        for claim, usual in zip(evaluated.answer.claims, comparison.answer.claims, strict=True):
            rows.append(
                {
                    "labels_of": reader,
                    "images": len(labels),
                    "positive": int(labels.sum()),
                    "difference": f"{claim.first} - {claim.second}",
                    "estimate": claim.difference.estimate,
                    "ci_low": claim.difference.low,
                    "ci_high": claim.difference.high,
                    "higher": claim.leader or "not shown",
                    "same_verdict": claim.standing == usual.standing,
                }
            )
    first = {row["difference"]: row["higher"] for row in reversed(rows)}  # by the reference
    changed = [row for row in rows if not row["same_verdict"]]
    opposite = [r for r in changed if "not shown" not in (r["higher"], first[r["difference"]])]
    of = listing(list(dict.fromkeys(row["labels_of"] for row in opposite or changed)))
    luck = (
        "another. One of three equally good readers does that by luck alone in up to 55 % of "
        "simulated test sets: compare the differences and their intervals."
    )
    text = (
        f"By the labels of {of} in place of the reference the verdict is "
        f"{'the opposite.' if opposite else luck}"
    )
    names = [n for n in dict.fromkeys(row["labels_of"] for row in rows) if n != REFERENCE_READER]
    if not names:
        text = "No reader of the data set has labelled the test images."
    elif all(row["higher"] == "not shown" for row in rows):
        ends = [number(end(row["estimate"] for row in rows)) for end in (min, max)]
        text = (
            f"Nothing is shown by the labels of {listing(names)}, either; differences go from "
            f"{' to '.join(ends)}."
        )
    elif not changed:
        text = f"The verdict is the same by the labels of {listing(names)}."
    notes = [*comparison.notes, Note("reference" if opposite else "readers", text)]
    return replace(comparison, by_reader=rows, notes=notes)
