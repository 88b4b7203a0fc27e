"""Tables of the AUROC without the images that an encoder has seen before."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.exposure import ExposureResult, UnseenFigure
from cxr_compare.evaluation.report.table import Row, Table
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.figure_text import number, range_text


def exposure_tables(comparison: Comparison) -> list[Table]:
    """Return tables of AUROCs with and without test images that a system has seen in training.

    The user gives lists of images that a system, or the pretrained encoder in it, has seen.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One table for each list that contains a test image, with one row for each system: AUROC on
        all test images, AUROC on the others, and the difference. An empty list if there is no such
        list.
    """
    return [_table(result) for result in comparison.exposures if result.n_seen]


def _table(result: ExposureResult) -> Table:
    exposure = result.exposure
    subject = f"the encoder {exposure.encoder}" if exposure.encoder else exposure.system
    rows: list[Row] = [
        (
            figure.system,
            _text(figure.on_all),
            _text(figure.on_unseen) or f"undefined: {figure.reason}",
            _with_note(_text(figure.difference), figure),
        )
        for figure in result.figures
    ]
    n_unseen = result.n_images - result.n_seen
    return Table.from_rows(
        f"AUROC without the images that {subject} has seen",
        f"{result.note.text} The difference is by patient, on {n_unseen:,} unseen images against "
        f"all. If other systems change as {exposure.system} does, the unseen images are easier or "
        f"harder; a change of {exposure.system} alone speaks for memory.",
        ("System", "All images", "Without the seen ones", "Difference"),
        rows,
    )


def _with_note(text: str, figure: UnseenFigure) -> str:
    """Add to a difference with an interval what makes the interval unsure."""
    gap = figure.difference
    unsure = gap is not None and gap.has_interval and figure.reason
    return f"{text}; {figure.reason}" if unsure else text


def _text(estimate: ClusteredEstimate | None) -> str:
    """Return a figure with its interval, or with the reason why there is none."""
    if estimate is None:
        return ""
    if not estimate.has_interval:
        return f"{number(estimate.estimate)} ({estimate.note or 'no interval'})"
    return f"{number(estimate.estimate)} ({range_text(estimate.ci_low, estimate.ci_high)})"
