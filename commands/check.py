"""`cxr check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cxr_compare.commands.options import AnyPath
from cxr_compare.data_prep.base.errors import require_extra
from cxr_compare.data_prep.base.files import require_there

if TYPE_CHECKING:
    from cxr_compare.data_prep.audit import Audit
else:
    Audit = Any  # the help needs no pandas


def check(
    data: Annotated[AnyPath, Parameter(help="Data set.")],
    *,
    split: str | None = None,
    without_pictures: bool = False,
) -> Audit:
    """Search a data set for leaks and faults.

    It writes data.html (the page to read), audit.json and exclude.csv (images to leave out, for
    `cxr prepare --exclude`) into the folder; exit status 1 says that there is an error.

    Args:
        split: Split of the data set that is reported; all without it.
        without_pictures: Show no X-ray on the page of the data set.
    """
    data = Path(data)
    require_there(data, "; give a data set")
    require_extra("check", "images")
    from cxr_compare.data_prep.audit import audit, write_audit
    from cxr_compare.data_prep.base.files import folder_lock
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts
    from cxr_compare.evaluation.report.data_page import write_data_page

    dataset = DataSet.open(data)
    if split is not None:
        dataset.split(split)  # refuses a name that it does not have, before anything is measured
    result = audit(dataset, measure_shortcuts)
    with folder_lock(data):
        write_audit(result)
        write_data_page(dataset, result, pictures=not without_pictures)
    return result if split is None else result.for_split(split)
