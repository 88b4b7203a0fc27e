"""Options of the function `prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.data_prep.audit.audit import MeasureShortcuts
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.formats.source import ReadOptions
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.work.engine import Engine
from cxr_compare.data_prep.work.local_engine import LocalEngine

# ``progress(description, total)`` returns a context manager, whose value is a function
# ``advance(n)``.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class PrepareOptions:
    """Options of the function `prepare`, which the command `cxr prepare` explains.

    Attributes:
        format: Name of the source's format, such as ``nih``; None lets the program recognise it.
        read: Options for reading the source, such as how several readers become one reference.
        name: Name of the data set in reports; None takes the name of the folder.
        sizes: Sides of the square images that are stored now, px; empty if pixels are stored later.
        targets: Names of the findings that make an image positive, by name of the target.
        rule: Shares, folds and seed by which splits are drawn.
        split: Default split: ``official``, or a CSV file with the role of each image or patient;
            None draws it by `rule`.
        exclude: CSV file with images to leave out (``image_id, reason``); None leaves out none.
        window: Name of the DICOM window by which grey values are shown; None takes the first of
            each file.
        id_key: File with the secret key by which ids are replaced by hashes; None keeps the ids.
        keep_ids: True to keep the ids of DICOM files, which then must identify nobody.
        add: True to add new images of the source to a complete data set.
        strict: True to stop at the first file or label that cannot be used, instead of leaving it
            out.
        engine: Processes or machines that decode the images.
        progress: Function that shows the progress of a step, from its description and number of
            items.
        show: Function that is called with each line for the user.
        measure_shortcuts: Function that measures how well metadata predict the label, for the
            audit; None omits this check.

    Example:
        >>> PrepareOptions(format="nih", sizes=(512,)).rule.test
        0.2
    """

    format: str | None
    read: ReadOptions = field(default_factory=ReadOptions)
    name: str | None = None
    sizes: tuple[int, ...] = ()
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rule: SplitRule = field(default_factory=SplitRule)
    split: str | Path | None = None
    exclude: Path | None = None
    window: str | None = None
    id_key: str | Path | None = None
    keep_ids: bool = False
    add: bool = False
    strict: bool = False
    engine: Engine = field(default_factory=lambda: LocalEngine(cpu_count()))
    progress: Progress = lambda description, total: nullcontext(lambda n: None)
    show: Callable[[str], None] = lambda line: None
    measure_shortcuts: MeasureShortcuts | None = None
