"""Options of the function `prepare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.data_prep.audit.audit import MeasureShortcuts
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.work.map_images import Workers
from cxr_compare.data_prep.work.progress import Progress, Silence


@dataclass(frozen=True)
class PrepareOptions:
    """Options of the function `prepare`, which the command `cxr prepare` explains.

    Attributes:
        format: Name of the format of the user's files, such as ``nih``; None raises an error that
            suggests a likely format.
        name: Name of the data set in reports; None takes the name of the folder.
        sizes: Sides of the resized square images that are stored now, px; empty if they are stored
            later.
        targets: By name of a target, the findings of which any makes an image positive.
        split: Assignment to train, validation and test: ``official`` for that of the publisher, or
            a CSV file with the role (train, val, test, unused) of each image or patient; None draws
            it by `rule`.
        exclude: CSV file with images to leave out (``image_id`` and optionally ``reason``).
        id_key: File with the secret key by which ids are replaced by hashes; None keeps the ids.
        keep_ids: True keeps the ids of DICOM files without hashing, which then must identify
            nobody.
        add: True adds new images of the user's folder to a complete data set.
        measure_shortcuts: Function for the check of shortcuts, as in `audit`; None omits it.
    """

    format: str | None
    read: ReadOptions = field(default_factory=ReadOptions)
    name: str | None = None
    sizes: tuple[int, ...] = ()
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rule: SplitRule = field(default_factory=SplitRule)
    split: str | Path | None = None
    exclude: Path | None = None
    id_key: str | Path | None = None
    keep_ids: bool = False
    add: bool = False
    workers: Workers = field(default_factory=cpu_count)
    progress: Progress = field(default_factory=Silence)
    measure_shortcuts: MeasureShortcuts | None = None
