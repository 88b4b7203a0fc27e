"""`cxr verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cxr_compare.scripts.options import AnyPath

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.verify import Verification
else:
    Verification = Any  # the help needs no pandas


def verify(
    report: Annotated[AnyPath, Parameter(help="Folder of a report of cxr compare, or its zip.")],
    *inputs: Annotated[
        AnyPath,
        Parameter(help="Files of which the report is said to be made, which are read again."),
    ],
    out: Annotated[
        AnyPath | None, Parameter(help="New folder for the report that is right.")
    ] = None,
) -> Verification:
    """Write a report again from its inputs, or from given files, and say what differs.

    All is compared: figures, sentences, tables, charts and pages, and the X-rays on them if their
    files are given. Exit status 1 says that a file differs, and 5 that it cannot be told: other
    versions or another commit may write a page otherwise, so read the one in `out` in its place.
    """
    from cxr_compare.scripts.verification import verify_report

    files = [Path(path) for path in inputs]
    return verify_report(Path(report), files, None if out is None else Path(out))
