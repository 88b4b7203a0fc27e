"""Shared by several formats: finding names, targets, images in folders, patients in names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from data_prep.contracts.errors import InputError

if TYPE_CHECKING:
    from data_prep.formats.source import SourceTables

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def finding_name(text: str) -> str:
    """Bring a published label to the form of a finding: lower case, words joined by ``_``.

    Example:
        >>> finding_name("Pleural Thickening"), finding_name("Nodule/Mass")
        ('pleural_thickening', 'nodule_mass')
    """
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def display_name(finding: str) -> str:
    """A finding as people read it.

    Example:
        >>> display_name("pleural_thickening")
        'Pleural thickening'
    """
    return finding.replace("_", " ").capitalize()


def one_target_each(findings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A target of its own for each finding, in alphabetical order.

    Example:
        >>> one_target_each(["mass"])
        {'mass': {'any_of': ['mass'], 'display_name': 'Mass'}}
    """
    return {
        name: {"any_of": [name], "display_name": display_name(name)}
        for name in sorted(set(findings))
    }


def with_targets(tables: SourceTables, targets: Mapping[str, Sequence[str]]) -> SourceTables:
    """Add the user's own targets to those of the reader; one of the same name is replaced.

    Args:
        tables: As a format gave them.
        targets: Name -> findings of which any makes it positive.

    Raises:
        InputError: A target has no member, or a finding that the source does not have.
    """
    known = set(tables.findings["finding"]) | {
        member for target in tables.targets.values() for member in target["any_of"]
    }
    made = {}
    for name, members in targets.items():
        unknown = [member for member in members if member not in known]
        if unknown or not members:
            raise InputError(
                f"--target {name}: finding '{', '.join(unknown)}' is not in the source; it has "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        made[name] = {"any_of": list(members), "display_name": display_name(name)}
    return replace(tables, targets={**tables.targets, **made})


def list_image_files(root: Path, folder: str = ".") -> pd.DataFrame:
    """List the images below a folder by the suffix of their names, deepest folders included."""
    found = []
    for place, folders, names in os.walk(root / folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        found += [
            (Path(place) / name).relative_to(root).as_posix()
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    paths = sorted(found)
    return pd.DataFrame({"path": paths, "stem": [Path(p).stem for p in paths]}, dtype="str")


def require_unique_stems(images: pd.DataFrame, root: Path) -> None:
    """Refuse two images whose names give one image id."""
    repeated = images["stem"].duplicated(keep=False)
    if repeated.any():
        first = images.loc[repeated].sort_values(["stem", "path"])["path"].iloc[:2].tolist()
        raise InputError(f"{root}: {first[0]} and {first[1]} have one id; keep one of them")


def patients_from_names(
    names: pd.Series, pattern: str | None, name_space: str, image_ids: pd.Series
) -> pd.DataFrame:
    r"""Find the patient of each image in a file's name.

    Example:
        >>> names = pd.Series(["00019124_092.png", "x.png"])
        >>> patients_from_names(names, r"(?P<nih>\d{8})_", "ward", names)["patient_id"].tolist()
        ['nih:00019124', 'ward:x.png']
    """
    assumed = name_space + ":" + image_ids.astype("str")
    if pattern is None:
        return pd.DataFrame({"patient_id": assumed, "patient_id_source": "assumed_image"})
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--patient-pattern {pattern!r}: {error}") from None
    if compiled.groups < 1:
        raise InputError(f"--patient-pattern {pattern!r}: put brackets around the patient's part")
    space = next(iter(compiled.groupindex), name_space)
    found = names.map(lambda name: m[1] if (m := compiled.search(name)) else None).astype("str")
    return pd.DataFrame(
        {
            "patient_id": (space + ":" + found).fillna(assumed),
            "patient_id_source": found.notna().map({True: "given", False: "assumed_image"}),
        }
    )
