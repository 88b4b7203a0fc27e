"""Descriptions of public data sets in ``datasets.toml``, and how a folder is recognised as one."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cxr_compare.data_prep.contracts.table_files import read_header
from cxr_compare.data_prep.sources.image_files import has_columns, list_images
from cxr_compare.data_prep.sources.known_tables import KnownTable

_MOST_PUBLISHED = 0.5  # share of images with published names beyond which it is this set


class LeftOut(BaseModel):
    """Rows whose images are left out: a column's cells fit a regular expression, in any case."""

    column: str
    pattern: str
    reason: str


class SetTable(KnownTable):
    """A table of a public data set.

    Attributes:
        file: Glob of its file below the folder; empty for the table of paths. Of several files the
            last one by name is read.
        like: Name of the table of ``columns.toml`` that says what the columns hold.
        required: False if the set can be read without it.
        missing: Note for the user if its file is missing.
        lists: True if its rows name the images of the set.
        one_row: True if an image with several different rows is left out.
        boxes_beside: Glob of a table of labels beside which this one adds boxes alone.
        constants: Columns that are added, each with the same cell in all rows.
        spellings: Names of columns, in lower case, by those of other releases.
        leave_out: Rows whose images are left out.
    """

    name: str = ""
    columns: list[str] = Field(default_factory=list)
    roles: dict[str, str | list[str]] = Field(default_factory=dict)
    file: str = ""
    like: str = ""
    required: bool = True
    missing: str = ""
    lists: bool = False
    one_row: bool = False
    boxes_beside: str = ""
    constants: dict[str, str] = Field(default_factory=dict)
    spellings: dict[str, str] = Field(default_factory=dict)
    leave_out: list[LeftOut] = Field(default_factory=list)


class PublicSet(BaseModel):
    """Description of a public data set.

    Attributes:
        title: Name of the set for people.
        format: Name of its format, which it may share with other sets.
        prefix: Prefix of the ids of patients, and name of the source of its images.
        detect: Globs below the folder, any of which shows that it is this set.
        by_names: True if the published names of its images show this.
        detect_columns: Files any of which shows this, by their columns.
        holder: Regular expression of folders around the set, which its archive adds.
        images: Regular expression of the paths of its images; other files are ignored.
        masks: Regular expression of paths of masks, which are no images.
        paths: Regular expression whose groups are the columns of a table of paths.
        published: Regular expression of published image names, which become ids; the id of another
            image is its path. Empty if all names are published.
        misnamed: Reason why an image is left out, by a regular expression of such paths.
        unlabelled: Regular expression of paths of images that are published without a label.
        part: Regular expression whose group is the role of an image in the publisher's split.
        official: File that lists the images of each role of the publisher's split.
        patient_pattern: Regular expression of the patient in the name of an image.
        patient_required: True if an image without a patient in its name is left out.
        findings: Findings that a normal image rules out, in the order of the targets.
        closed: True if the labels may name no other finding.
        targets: Findings of each target, by its name; without them each finding is a target.
        names: Names of targets for people, if not made of their names.
        any_finding: True for a further target of all findings.
        boxed: Findings of which all lesions have a box; empty for those with any box.
        coverage: Images and findings of which all lesions have a box, as in `statements.build`.
        copies: True if boxes are scaled to copies of the images whose original size is stated.
        size: Width and height of the published images, px.
        framed: True if a boxed file of another size is left out.
        view: View of all images.
        notes: Notes for the user.
        table: The tables.
    """

    model_config = ConfigDict(extra="forbid")
    title: str
    format: str
    prefix: str
    detect: list[str] = []
    by_names: bool = False
    detect_columns: dict[str, list[str]] = {}
    holder: str = ""
    images: str = ""
    masks: str = ""
    paths: str = ""
    published: str = ""
    misnamed: dict[str, str] = {}
    unlabelled: str = ""
    part: str = ""
    official: dict[str, str] = {}
    patient_pattern: str = ""
    patient_required: bool = False
    findings: list[str] = []
    closed: bool = False
    targets: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    any_finding: bool = False
    boxed: list[str] = []
    coverage: str = "localised"
    copies: bool = False
    size: tuple[int, int] | None = None
    framed: bool = False
    view: str = ""
    notes: list[str] = []
    table: list[SetTable]


@cache
def public_sets() -> dict[str, PublicSet]:
    """Return the descriptions of public data sets by name."""
    path = Path(__file__).with_name("datasets.toml")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: PublicSet.model_validate(entry) for name, entry in content.items()}


def find_set(root: Path, format: str) -> PublicSet | None:  # noqa: A002 - the option's own name
    """Return the description of a format that fits a folder; None if none fits."""
    sets = [entry for entry in public_sets().values() if entry.format == format]
    return next((entry for entry in sets if root.is_dir() and _fits(root, entry)), None)


def only_set(format: str) -> PublicSet | None:  # noqa: A002 - the option's own name
    """Return the only description of a format if it is one of class folders, which may be odd."""
    sets = [entry for entry in public_sets().values() if entry.format == format]
    return sets[0] if len(sets) == 1 and sets[0].by_names else None


def _fits(root: Path, entry: PublicSet) -> bool:
    if any(next(root.glob(pattern), None) is not None for pattern in entry.detect):
        return True
    if any(has_columns(root / name, *names) for name, names in entry.detect_columns.items()):
        return True
    return entry.by_names and _has_published_names(root, entry)


def _has_published_names(root: Path, entry: PublicSet) -> bool:
    """Return True if most images of a folder have published names, and all are in its folders."""
    files = list_images(root)
    inside = files["path"].str.replace(entry.holder, "", regex=True)
    in_place = inside.str.match(entry.paths)
    is_published = files["name"].str.contains(entry.published, regex=True)
    return bool(len(files) and in_place.all() and is_published.mean() > _MOST_PUBLISHED)


def find_table(root: Path, name: str) -> Path | None:
    """Return the file of the first table of a public set; None without."""
    return find_file(root, public_sets()[name].table[0])


def find_file(root: Path, table: SetTable) -> Path | None:
    """Return the file of a table; of several the last by name, such as a corrected one of 2020."""
    paths = [path for path in sorted(root.glob(table.file), reverse=True) if path.is_file()]
    names = set(table.columns)
    return next((path for path in paths if names <= _columns(path, table)), None)


def _columns(path: Path, table: SetTable) -> set[str]:
    names = table.columns if path.suffix == ".gz" else read_header(path)  # gz is read later
    return {table.spellings.get(name.lower(), name) for name in names}
