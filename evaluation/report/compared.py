"""A comparison in memory, of which a result and its page are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.report.summary_table import TableRow
from cxr_compare.evaluation.sources.pixels import Pixels


@dataclass(frozen=True)
class Compared:
    """A comparison in memory, with what its page and its images need.

    Attributes:
        pixels: Reader of the pixels; None if there are no image files.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual rows.
        seed: Random seed for drawing some of the images that all systems decide rightly.
        charts: ``MODULE:NAME`` of functions of the user's own that draw a chart of the result.
    """

    comparison: Comparison
    truth: LabelledImages
    pixels: Pixels | None = None
    rows: Sequence[TableRow] = ()
    seed: int = 0
    charts: Sequence[str] = ()
