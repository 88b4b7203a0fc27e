"""Records of a data set folder: what it holds, and how its images were assigned to roles."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.contracts.records import Digests, Items, Record, Whole


class DataSetIds(Record):
    """Digests by which a program recognises that two data sets have the same images or labels.

    Attributes:
        content_id: Digest of the table of images.
        labels_id: Digest of the labels and boxes.
        split_ids: By name of a split (assignment of images to train, validation and test), its
            digest.
    """

    content_id: str
    labels_id: str
    split_ids: dict[str, str] = Field(default_factory=dict)


class DataSetInfo(MadeRecord, kind="dataset"):
    """Content of ``dataset.json``, which marks a data set folder as complete.

    Attributes:
        source_format: Format of the user's files, such as ``rsna``.
        source_root: Folder of the user's image files, to which the paths of the images are
            relative.
        targets: By name: findings (diseases) that together make an image positive, and that can be
            evaluated under this name.
        settings: Options of ``cxr prepare`` with which the data set was made.
        id_key: Keyed hash by which the secret key is recognised that replaced ids by hashes; None
            if the original ids are kept.
        notes: Sentences on how the user's files were read.
        files: SHA-256 of each table in the folder, by file name.
    """

    name: str
    source_format: str
    source_root: str
    targets: dict[str, Target]
    ids: DataSetIds
    settings: dict[str, Any]
    id_key: str | None = None
    notes: Items[str] = ()
    files: Digests = Field(default_factory=dict)


class DrawnBy(Record):
    """Options with which patients were drawn at random for training, validation and test.

    Attributes:
        val: Share of all patients that are drawn for validation, in [0, 1).
        test: Share of all patients that are drawn for test, in [0, 1].
        folds: Number of cross-validation folds into which the patients of train and validation are
            divided.
    """

    val: float
    test: float
    folds: Whole
    seed: Whole


class SplitOrigin(Record):
    """Method by which each image of a split was assigned to train, validation or test.

    Attributes:
        method: Phrase that names the method, such as ``by patient, balanced``.
        folds: Phrase on how the folds were made; None if there are none.
        rule: Options of the random draw; None if nothing was drawn.
        balanced: Columns by which the parts were balanced.
        notes: Sentences for the user.
        file: Name of the user's file with the assignment; None without a file.
        by: Column by which the rows of that file were found.
        n_ids_unknown: Number of ids in that file that are not in the data set.
        n_patients_in_two_roles: Number of patients to whom the source gives several roles.
        n_images_unused: Number of images of such patients that are unused.
        n_images_without_role: Number of images to which the source gives no role.
        n_images_added: Number of images that were added after the split was made.
    """

    method: str
    folds: str | None = None
    rule: DrawnBy | None = None
    balanced: Items[str] = ()
    notes: Items[str] = ()
    file: str | None = None
    by: str | None = None
    n_ids_unknown: Whole = 0
    n_patients_in_two_roles: Whole = 0
    n_images_unused: Whole = 0
    n_images_without_role: Whole = 0
    n_images_added: Whole = 0


class SplitInfo(Record, kind="split"):
    """Content of ``splits/NAME.json``, which is written after the table of the split.

    Attributes:
        split_id: Digest of ids and roles.
        n_images: Number of images by role.
        files: SHA-256 of the table beside the record, by file name.
    """

    name: str
    split_id: str
    how: SplitOrigin
    n_images: dict[str, Whole]
    files: Digests
