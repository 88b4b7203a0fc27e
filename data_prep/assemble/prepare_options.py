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

    Example:
        >>> PrepareOptions(format="nih", sizes=(512,)).rule.test
        0.2
    """

    format: str | None
    read: ReadOptions = field(default_factory=ReadOptions)  # options of the format
    name: str | None = None
    sizes: tuple[int, ...] = ()  # sides of pixel stores to build now, px
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name -> findings
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
    show: Callable[[str], None] = lambda line: None  # called with lines for the user
    measure_shortcuts: MeasureShortcuts | None = None
