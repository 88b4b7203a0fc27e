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
    report: Annotated[AnyPath, Parameter(help="Folder of a report of cxr compare.")],
    *inputs: Annotated[AnyPath, Parameter(help="Files of which the report is said to be made.")],
) -> Verification:
    """Compute a report again from its folder alone, and say what differs.

    Figures, sentences, tables, charts and the page are computed from the labels, scores and boxes
    in the folder; pictures and predictions of trained networks are compared by their digests.
    Exit status 1 says that something differs, or that nothing could be computed; other versions of
    packages are named.
    """
    from cxr_compare.evaluation.report.verify import verify_report

    return verify_report(Path(report), [Path(each) for each in inputs])
