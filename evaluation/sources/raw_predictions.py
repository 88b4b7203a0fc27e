"""Predictions as they were read from a file or a frame, before they are checked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.text import TEXT


def _no_boxes() -> pd.DataFrame:
    texts = {name: pd.Series([], dtype=TEXT) for name in ("image_id", "place")}
    return pd.DataFrame({**texts, **{name: np.zeros(0) for name in (*EDGES, "score")}})


@dataclass
class RawPredictions:
    """Predictions as read from a file, before they are checked against a data set.

    Attributes:
        rows: One row for each score or box: columns ``image_id, score``, possibly ``finding`` and
            ``x1, y1, x2, y2``, and ``place``, a text for messages such as ``row 3``.
        content: Bytes of the file or files, from which an id of the predictions is computed.
        listed: Names of the images that have a file in a YOLO folder, or a row in a reader's form
            or a challenge's submission, even without a box.
        advice: Advice to append to an error message about unknown image names; may be empty.
        class_advice: Advice to append to an error message about classes of boxes that are no
            findings of the truth; may be empty.
        notes: Assumptions that were made in reading, one sentence each.
        reading: How the boxes of the file are written; rows have corners in its unit.
        ran: Names of the images that a COCO annotation file or a challenge's submission lists, on
            all of which the detector ran; None without such a file.
        crowds: True boxes that a COCO annotation file marks as ``iscrowd``, with the columns of
            ``rows``.
        score_column: Name of the column of image scores that was recognised; empty if the user
            named it, and without such a column.
        classes: Further columns with two classes, one row for each row of ``rows``.
    """

    rows: pd.DataFrame
    content: bytes
    listed: tuple[str, ...] = ()
    advice: str = ""
    class_advice: str = ""
    notes: list[str] = field(default_factory=list)
    reading: BoxReading = field(default_factory=BoxReading)
    ran: tuple[str, ...] | None = None
    crowds: pd.DataFrame = field(default_factory=_no_boxes)
    score_column: str = ""
    classes: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def in_shares(self) -> bool:
        """True if the coordinates of boxes are shares of the image's sides, or per cent of them."""
        return self.reading.unit != "px"
