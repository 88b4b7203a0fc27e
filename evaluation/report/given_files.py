"""Names, sizes and SHA-256 of the files that a report was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.base.files import file_digest, is_work_file
from cxr_compare.data_prep.base.folders import folder_kind
from cxr_compare.data_prep.base.records import digest_of
from cxr_compare.data_prep.base.user_tables import require_file_size
from cxr_compare.data_prep.predictions import Predictions

_TEXTS = (".txt", ".yaml", ".yml", ".csv", ".json", ".xml")


def given_files(parts: Mapping[str, Any], systems: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, size and SHA-256 of each file, folder or value, by what it was given as."""
    value_by_role = {role: value for role, value in parts.items() if value is not None}
    value_by_role |= {f"system {name}": value for name, value in systems.items()}
    return [{"given_as": role, **_given_file(value)} for role, value in value_by_role.items()]


def _given_file(value: Any) -> dict[str, Any]:
    """Return name, size and SHA-256 of a file or folder; of a value in memory what it is."""
    if isinstance(value, Predictions):
        value = value.folder
    if not isinstance(value, str | os.PathLike) or not os.path.exists(value):  # noqa: PTH110
        return {"name": f"{type(value).__name__} in memory"}
    path = Path(value)
    return _digest_of_file(path) if path.is_file() else _digest_of_folder(path)


def _digest_of_file(path: Path) -> dict[str, Any]:
    require_file_size(path)
    name = path.resolve().name
    return {"name": name, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def _digest_of_folder(path: Path) -> dict[str, Any]:
    """Return the digest of a folder; of one of ours by the record that names all its files.

    Another one, whose name may be that of a person, counts by the digests of its texts, and the
    sizes of its other files, such as images, of which all would have to be read.
    """
    if kind := folder_kind(path):
        name = f"{path.resolve().name}/{kind.record}"
        return {**_digest_of_file(path / kind.record), "name": name}
    files_inside = [file for file in path.rglob("*") if file.is_file() and not is_work_file(file)]
    contents = {
        str(file.relative_to(path)): file_digest(file)
        if file.suffix.lower() in _TEXTS
        else file.stat().st_size
        for file in files_inside
    }
    size = sum(file.stat().st_size for file in files_inside)
    return {
        "name": f"folder of {len(files_inside)} files",
        "bytes": size,
        "sha256": digest_of(contents),
    }
