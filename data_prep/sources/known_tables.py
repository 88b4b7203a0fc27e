"""Descriptions of label tables: names of columns by role, and whole tables of known data sets."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_compare.data_prep.contracts.column_names import names_by_role
from cxr_compare.data_prep.contracts.errors import InputError, nearest_name
from cxr_compare.data_prep.contracts.schemas import ORIGINS
from cxr_compare.data_prep.contracts.text_files import read_toml_file
from cxr_compare.data_prep.sources.label_values import dictionary

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
_ROLES = (
    "file",
    "label",
    "state",
    "finding",
    "no_finding",
    "reader",
    *FACTS,
    *BOX_ROLES,
    "unused",
)


class KnownTable(BaseModel):
    """Description of a table of a public data set, or of the user's own tables.

    Attributes:
        name: Name of the table for people.
        columns: Columns by which the table is recognised: it has all of them.
        roles: Column of each role, or several of which the first filled one counts.
        origin: Kind of the labels.
        patient_pattern: Regular expression that finds the patient in the name of an image.
        boxes_only: True if the table adds boxes to labels of another table.
        closed: True if a row names every finding that is present; False if only a row that says
            that nothing is found rules out the others.
        separator: Regular expression between the labels of a cell, if it is not | or ;.
        unknown: Labels, in lower case, that name no finding.
        values: Meaning of cells by role, in lower case.
        extract: Regular expressions by role; the first group is taken of the cells.
        numbers: Roles ``x_...`` whose cells are numbers.
        field: Columns of width and height (px) and of the pixel spacing in x and y (mm) of the
            original image, whose products are the true size of what the image shows.
    """

    model_config = ConfigDict(strict=True)
    name: str
    columns: list[str]
    roles: dict[str, str | list[str]]
    origin: str = Field(default=ORIGINS[0], pattern=f"^({'|'.join(ORIGINS)})$")
    patient_pattern: str = ""
    boxes_only: bool = False
    closed: bool = True
    separator: str = ""
    unknown: list[str] = []
    values: dict[str, dict[str, str]] = {}
    extract: dict[str, str] = {}
    numbers: list[str] = []
    field: list[str] = []


class ColumnFile(BaseModel):
    """Content of a file with names of columns and descriptions of whole tables."""

    model_config = ConfigDict(strict=True)
    names: dict[str, list[str]] = {}
    table: list[KnownTable] = []


def read_column_file(path: Path) -> ColumnFile:
    """Read a TOML file that says what the columns of label tables hold, as ``columns.toml``."""
    try:
        content = ColumnFile.model_validate(read_toml_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][:1].lower() + first["msg"][1:]
        example = "data_prep/sources/columns.toml"
        raise InputError(f"{path}: {key}: {reason}; write it as {example} does") from None
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
def own_file() -> ColumnFile:
    """Return the names and tables that come with the program."""
    content = {"names": names_by_role(), "table": dictionary()["table"]}
    return ColumnFile.model_validate(content)


def known_table(name: str) -> KnownTable:
    """Return the description of a table in ``columns.toml``."""
    return next(table for table in own_file().table if table.name == name)
