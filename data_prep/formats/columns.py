"""Names and roles of the columns of label tables, from ``columns.toml``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_compare.data_prep.contracts.column_names import names_by_role
from cxr_compare.data_prep.contracts.errors import InputError, nearest_name
from cxr_compare.data_prep.contracts.schemas import ORIGINS
from cxr_compare.data_prep.contracts.text_files import read_toml_file

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
COLUMN_ROLES = (
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


@cache
def column_dictionary() -> dict[str, Any]:
    """Return descriptions of public label tables, and names of columns by what they contain.

    They are the content of the package's files ``columns.toml`` and ``column_names.toml``.
    """
    return {
        **read_column_names(Path(__file__).with_name("columns.toml")),
        "names": names_by_role(),
    }


class _KnownTable(BaseModel):
    """Description of a table of a known data set in columns.toml."""

    model_config = ConfigDict(strict=True)
    name: str
    columns: list[str]
    roles: dict[str, str | list[str]]
    origin: str = Field(default=ORIGINS[0], pattern=f"^({'|'.join(ORIGINS)})$")
    patient_pattern: str = ""
    boxes_only: bool = False
    unknown: list[str] = []
    values: dict[str, dict[str, str]] = {}


class _Names(BaseModel):
    """Content of a file with names of columns and descriptions of whole tables."""

    model_config = ConfigDict(strict=True)
    names: dict[str, list[str]] = {}
    table: list[_KnownTable] = []


def read_column_names(path: Path) -> dict[str, Any]:
    """Read a TOML file that says what the columns of label tables contain.

    Args:
        path: TOML file of the user, in the form of the package's ``columns.toml``: names of columns
            by role (what a column contains, such as ``patient``), and descriptions of whole tables.

    Returns:
        Content of the file.

    Raises:
        InputError: A key is unknown, or names a role that does not exist.
    """
    content = read_toml_file(path)
    try:
        _Names.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise InputError(
            f"{path}: {key}: {reason}; write it as data_prep/formats/columns.toml does"
        ) from None
    for role in content.get("names", {}):
        require_role(role, str(path))
    for entry in content.get("table", ()):
        for role in entry["roles"]:
            require_role(role, str(path))
    return content


def require_role(role: str, where: str) -> None:
    """Check that a role, the name for what a column of a label table contains, is known.

    Args:
        role: The role, such as ``patient``, or ``finding:NAME`` for a column with the labels of one
            finding (disease).
        where: Option or file that names the role, for the message.

    Raises:
        InputError: There is no such role.
    """
    kind = role.partition(":")[0]
    if kind not in COLUMN_ROLES and not kind.startswith("x_"):
        near = nearest_name(kind, COLUMN_ROLES, f"roles are {', '.join(COLUMN_ROLES)} and x_...")
        raise InputError(f"{where}: there is no role '{kind}'; {near}")
