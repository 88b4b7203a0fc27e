"""The verdict of a comparison by the labels of each reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit

_NOT_SHOWN = "not shown"
_TEMPLATE = Path(__file__).with_name("reader_verdicts.txt.jinja")


def evaluate_by_readers(
    comparison: Comparison, test_set: LabelledSplit, evaluate: Callable[[LabelledSplit], Comparison]
) -> Comparison:
    """Compare the same models again with the labels of each human reader as the truth.

    The result shows whether the conclusion depends on whose labels are used. Only the labels of the
    test images change. The models' predictions and thresholds stay unchanged, because the
    validation images keep the labels of the reference standard (the data set's usual labels).

    Args:
        comparison: Comparison of the models with the labels of the reference standard.
        test_set: Test images of this comparison, in a data set that stores the labels of each
            reader.
        evaluate: Function that compares the models on test images; it is called once for each
            reader, with the labels of this reader.

    Returns:
        The first comparison, to which the table ``by_reader`` (each difference by each reader's
        labels) and a note on whether the conclusions agree are added.
    """
    dataset = test_set.dataset
    test = test_set.image_ids("test")
    rows: list[dict[str, Any]] = []
    for reader in (REFERENCE_READER, *dataset.readers):
        reader_set = replace(test_set, dataset=dataset.with_labels_of(reader, test))
        if not reader_set.labels_of("test").notna().any():
            continue  # this reader labelled none of the test images
        evaluated = comparison if reader == REFERENCE_READER else evaluate(reader_set)
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
                    "higher": claim.leader or _NOT_SHOWN,
                    "same_verdict": claim.standing == usual.standing,
                }
            )
    note = _verdict_note(rows, REFERENCE_READER)
    return replace(comparison, by_reader=rows, notes=[*comparison.notes, note])


def _verdict_note(rows: Sequence[Mapping[str, Any]], reference: str) -> Note:
    """Return the note that compares the verdicts by each reader's labels with the reference's."""
    of_reference = {row["difference"]: row["higher"] for row in reversed(rows)}
    readers = [row["labels_of"] for row in rows if row["labels_of"] != reference]
    readers = list(dict.fromkeys(readers))
    changed = [row for row in rows if not row["same_verdict"]]
    opposite = [
        row for row in changed if _NOT_SHOWN not in (row["higher"], of_reference[row["difference"]])
    ]
    if not readers:
        return Note("readers", verdict_sentence("no_reader"))
    if all(row["higher"] == _NOT_SHOWN for row in rows):
        estimates = [row["estimate"] for row in rows]
        return Note(
            "readers", verdict_sentence("nothing_shown", readers, min(estimates), max(estimates))
        )
    if not changed:
        return Note("readers", verdict_sentence("same_verdict", readers))
    if opposite:
        names = list(dict.fromkeys(row["labels_of"] for row in opposite))
        return Note("reference", verdict_sentence("opposite_verdict", names))
    names = list(dict.fromkeys(row["labels_of"] for row in changed))
    return Note("readers", verdict_sentence("other_verdict", names))


def verdict_sentence(macro: str, *values: Any) -> str:
    """Return a sentence on the readers' verdicts, on one line."""
    return sentence(macro, *values, template=_TEMPLATE)
