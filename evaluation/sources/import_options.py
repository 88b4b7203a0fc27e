"""Options by which predictions of other software, or of a reader, become a system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.evaluation.boxes.read_table import ColumnNames
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice


@dataclass(frozen=True)
class ImportOptions:
    """Options by which a result file is read.

    Attributes:
        name: Name of the detector, classifier or reader as shown in reports.
        finding: Name of the finding (disease sign) that all rows are about, such as
            ``lung_opacity``. None reads it from a column, or takes the only known finding.
        columns: Names of the columns of a table; by default ``image_id``, ``score``, ``finding`` or
            similar names that are recognised.
        class_names: Names of YOLO's class numbers, in their order: a sequence, a text with commas
            such as ``"mass,nodule"``, or a ``data.yaml`` file. None uses the ``data.yaml`` beside
            the text files; without such a file, all boxes must be of class 0. Not used for other
            sources.
        images: Images on which the detector was run. An image among them without a box is one on
            which it found nothing. ``all`` for all validation and test images, ``listed`` for the
            images with a row, a sequence of image ids, or a text file with one id per line. It
            changes nothing for image scores.
        split: Name of the division of the images into validation and test images.
        ignore_unknown: True to leave out rows of unknown images or findings, False to refuse the
            source.
        coco_truth: COCO annotation file in which a COCO results file's image and category numbers
            have names; None if the results need no names.
        usual_finding: Finding of rows that name none, if the source may also name the findings of
            its rows; None if the known images or `finding` decide.
        scale: Factor from the px of the boxes to px of the original image. None asks about boxes
            that are spread over another range than the true boxes.
        advice: What error messages and notes tell the user to do.
    """

    name: str
    finding: str | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    class_names: str | Path | Sequence[str] | None = None
    images: str | Path | Iterable[str] = "all"
    split: str = "default"
    ignore_unknown: bool = False
    coco_truth: str | Path | None = None
    usual_finding: str | None = None
    scale: float | None = None
    advice: ReadingAdvice = field(default_factory=ReadingAdvice)
