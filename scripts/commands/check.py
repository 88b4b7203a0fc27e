"""`cxr check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError, require_extra
from cxr_compare.data_prep.base.files import require_there
from cxr_compare.scripts.options import AnyPath

if TYPE_CHECKING:
    from cxr_compare.data_prep.audit import Audit
    from cxr_compare.data_prep.published_split import SplitCheck
else:
    Audit = SplitCheck = Any  # the help needs no pandas


def check(
    data: Annotated[AnyPath, Parameter(help="Data set, or a table or list of a published split.")],
    *,
    split: str | None = None,
    train: list[Path] | None = None,
    mapping: AnyPath | None = None,
    without_pictures: bool = False,
) -> Audit | SplitCheck:
    """Search a data set, or a split that somebody published, for leaks and faults.

    Of a data set it writes data.html (the page to read), audit.json and exclude.csv (images to
    leave out, for `cxr prepare --exclude`) into the folder; exit status 1 says that there is an
    error. Of a published split, a table with a column of images or patients and one of roles
    (train, val, test), it counts the test images whose patient is in training, too; exit status 1
    says that there are some.

    Args:
        split: Split of the data set that is reported; all without it.
        train: List of training images, where DATA is a list of test images; may be repeated.
        mapping: Patient of each image of a published split: a table image_id,patient_id,
            rsna_to_nih.csv for images of the RSNA challenge, or a data set.
        without_pictures: Show no X-ray on the page of the data set.
    """
    data = Path(data)
    require_there(data, "; give a data set or a published split")
    if data.is_file():
        from cxr_compare.data_prep.published_split import check_published_split

        for name, is_given in (
            ("split", split is not None),
            ("without_pictures", without_pictures),
        ):
            if is_given:
                raise InputError(f"{name}: is for a data set, and {data} is a published split")
        listings = [train] if isinstance(train, str | Path) else train or ()
        lists = [Path(listing) for listing in listings]
        return check_published_split(data, lists, None if mapping is None else Path(mapping))
    if train or mapping is not None:
        argument = "train" if train else "mapping"
        raise InputError(f"{argument}: is for a published split, and {data} is a folder")
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
