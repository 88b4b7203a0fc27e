"""Descriptions of label tables and public data sets, as ``datasets.toml`` or a user gives them."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_compare.data_prep.contracts.column_names import names_by_role
from cxr_compare.data_prep.contracts.errors import InputError, nearest_name
from cxr_compare.data_prep.contracts.schemas import ORIGINS
from cxr_compare.data_prep.contracts.text_files import read_toml_file
from cxr_compare.data_prep.sources.image_files import has_columns, list_images

# Column of the images table for each role that states a fact about the image.
FACTS = {
    "patient": "patient_id",
    "study": "study_id",
    "view": "view",
    "sex": "sex",
    "age": "age_years",
    "split": "split",
    "image_width": "width",
    "image_height": "height",
}
SIDES = (("xmin", "xmax", "width", "xcenter"), ("ymin", "ymax", "height", "ycenter"))
BOX_ROLES = tuple(role for side in SIDES for role in side)
_ROLES = ("file", "label", "state", "finding", "no_finding", "reader", *FACTS, *BOX_ROLES, "unused")
_MOST_PUBLISHED = 0.5  # share of images with published names beyond which it is this set


class _Described(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LeftOut(_Described):
    """Rows whose images are left out: a column's cells fit a regular expression, in any case."""

    column: str
    pattern: str
    reason: str


class TableRules(_Described):
    """Description of a label table: the contents of its columns and the meanings of its cells.

    Attributes:
        name: Name of the table for people; a table with one is recognised wherever it is.
        source: Where the table and its meaning are published.
        columns: Columns by which the table is recognised: it has all of them.
        roles: Column of each role, or several of which the first filled one counts.
        origin: Kind of the labels.
        patient_pattern: Regular expression that finds the patient in the path of an image.
        boxes_only: True if the table adds boxes to labels of another table.
        closed: True if a row names every finding that is present; False if only a row that says
            that nothing is found rules out the others.
        separator: Regular expression between the labels of a cell, if it is not | or ;.
        unknown: Labels, in lower case, that name no finding.
        values: Meaning of cells by role, in lower case.
        numbers: Roles ``x_...`` whose cells are numbers.
        field: Columns of width and height (px) and of the pixel spacing in x and y (mm) of the
            original image, whose products are the true size of what the image shows.
        label: Cell of all rows of an added column ``label``.
        file: Globs of its files in the folder of a public set, of each of which the last one by
            name is read; empty for the table of the paths of images.
        missing: Note for the user if no file is there, or an empty text; None if it must be there.
        leave_out: Rows whose images are left out.
    """

    name: str = ""
    source: str = ""
    columns: list[str] = []
    roles: dict[str, str | list[str]] = {}
    origin: str = Field(default=ORIGINS[0], pattern=f"^({'|'.join(ORIGINS)})$")
    patient_pattern: str = ""
    boxes_only: bool = False
    closed: bool = True
    separator: str = ""
    unknown: list[str] = []
    values: dict[str, dict[str, str]] = {}
    numbers: list[str] = []
    field: list[str] = []
    label: str = ""
    file: list[str] = []
    missing: str | None = None
    leave_out: list[LeftOut] = []


class PublicSet(_Described):
    """Description of a public data set.

    Attributes:
        format: Name of its format, which it may share with other sets.
        prefix: Prefix of the ids of patients, and name of the source of its images.
        detect: Globs below the folder, any of which shows that it is this set.
        detect_columns: Files any of which shows this, by their columns.
        by_names: True if the published names of its images show this.
        mapped_to_nih: True if a mapping in its folder tells which image of NIH each image is.
        holder: Regular expression of folders around the set, which its archive adds.
        images: Regular expression of the paths of its images; other files are ignored.
        paths: Regular expression whose groups are the columns of a table of paths.
        published: Regular expression of published image names, which become ids; the id of another
            image is its path. Empty if all names are published.
        misnamed: Reason why an image is left out, by a regular expression of such paths.
        unlabelled: Regular expression of paths of images that are published without a label.
        part: Regular expression whose group is the role of an image in the publisher's split.
        official: File that lists the images of each role of the publisher's split.
        patient_pattern: Regular expression of the patient in the name of an image.
        findings: Findings that a normal image rules out, in the order of the targets.
        closed: True if the labels may name no other finding.
        targets: Findings of each target, by its name; without them each finding is a target.
        display_names: Names of targets for people, if not made of their names.
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

    format: str
    prefix: str
    detect: list[str] = []
    detect_columns: dict[str, list[str]] = {}
    by_names: bool = False
    mapped_to_nih: bool = False
    holder: str = "^"
    images: str = ""
    paths: str = ""
    published: str = ""
    misnamed: dict[str, str] = {}
    unlabelled: str = "(?!)"
    part: str = ""
    official: dict[str, str] = {}
    patient_pattern: str = ""
    findings: list[str] = []
    closed: bool = False
    targets: dict[str, list[str]] = {}
    display_names: dict[str, str] = {}
    any_finding: bool = False
    boxed: list[str] = []
    coverage: str = "localised"
    copies: bool = False
    size: list[int] = []
    framed: bool = False
    view: str = ""
    notes: list[str] = []
    table: list[TableRules]

    def fits(self, root: Path) -> bool:
        """Return True if a folder holds this set."""
        found = any(next(root.glob(pattern), None) is not None for pattern in self.detect)
        named = any(has_columns(root / name, *of) for name, of in self.detect_columns.items())
        return root.is_dir() and (found or named or (self.by_names and self._names_images(root)))

    def _names_images(self, root: Path) -> bool:
        """Return True if most images have published names, and all are in the set's folders."""
        files = list_images(root)
        in_place = files["path"].str.replace(self.holder, "", regex=True).str.match(self.paths)
        is_published = files["name"].str.contains(self.published, regex=True)
        return bool(len(files) and in_place.all() and is_published.mean() > _MOST_PUBLISHED)


class PublicFormat(_Described):
    """Description of a format of public data sets; the attributes are those of `Format`."""

    title: str
    folder: str
    sources: list[str]
    options: list[str] = []


class DescriptionFile(_Described):
    """Content of a file that describes tables, formats of public data sets and the sets, by name.

    Attributes:
        names: Names of columns by role, the most exact first.
    """

    names: dict[str, list[str]] = {}
    table: list[TableRules] = []
    format: dict[str, PublicFormat] = {}
    set: dict[str, PublicSet] = {}

    def find_table(self, columns: Collection[str]) -> TableRules | None:
        """Return the description with the most columns that a table all has; None without one."""
        published = [table for entry in self.set.values() for table in entry.table if table.name]
        fitting = [t for t in (*self.table, *published) if {*t.columns} <= {*columns}]
        return max(fitting, key=lambda table: len(table.columns), default=None)


def read_descriptions(path: Path) -> DescriptionFile:
    """Read a TOML file that says what the columns of label tables hold, as ``datasets.toml``."""
    try:
        content = DescriptionFile.model_validate(read_toml_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][:1].lower() + first["msg"][1:]
        example = "data_prep/sources/datasets.toml"
        raise InputError(f"{path}: {key}: {reason}; write it as {example} does") from None
    if not all(table.name for table in content.table):
        raise InputError(f"{path}: a [[table]] has no name; give each one")
    for role in (*content.names, *(role for table in content.table for role in table.roles)):
        require_role(role, str(path))
    return content


def require_role(role: str, where: str) -> None:
    """Refuse a role, what a column of a label table holds, that does not exist."""
    kind = role.partition(":")[0]
    if kind not in _ROLES and not kind.startswith("x_"):
        near = nearest_name(kind, _ROLES, f"roles are {', '.join(_ROLES)} and x_...")
        raise InputError(f"{where}: there is no role '{kind}'; {near}")


@cache
def own_descriptions() -> DescriptionFile:
    """Return the names of columns, tables and data sets that come with the program."""
    content = read_descriptions(Path(__file__).with_name("datasets.toml"))
    return content.model_copy(update={"names": names_by_role()})


def public_sets() -> dict[str, PublicSet]:
    """Return the descriptions of public data sets by name."""
    return own_descriptions().set


def find_files(root: Path, rules: TableRules) -> list[Path]:
    """Return the files of a table below a folder, such as a corrected one before the older one."""
    found = []
    for pattern in rules.file:
        paths = [path for path in sorted(root.glob(pattern), reverse=True) if path.is_file()]
        names = [name.lower() for name in rules.columns]
        fitting = (p for p in paths if p.suffix == ".gz" or has_columns(p, *names))
        found += list(islice(fitting, 1))
    return found


def sets_of_format(name: str) -> list[PublicSet]:
    """Return the descriptions of the data sets of a format."""
    return [entry for entry in public_sets().values() if entry.format == name]
