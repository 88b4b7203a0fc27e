"""Recognition of the kind of a folder, and advice if another kind is needed."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.folder_kinds import FOLDER_KINDS, FolderKind, KindName

REPORT_MARKER = "answer.json"
"""File that marks a report folder complete."""

_KINDS = tuple(kind for kind in FOLDER_KINDS if not kind.is_part)
MARKERS = tuple(kind.marker for kind in _KINDS)
"""Files that mark a folder of some kind complete."""
SHARDS: tuple[KindName, ...] = ("shard of a data set", "shard of predictions")
"""Kinds of folders that are no results of their own: ``--join`` makes one of all."""
_LIST_PERMISSION = os.R_OK | os.X_OK
_MAX_CHILDREN = 200  # folders inside a folder that are looked into
_PLURAL = ("predictions",)  # kinds whose names are plural
_MAX_NAMED = 3  # folders in a message


def folder_kind(folder: Path) -> FolderKind | None:
    """Return the kind (such as run or report) of a complete folder that a ``cxr`` command made.

    Args:
        folder: Path of the folder. It need not exist.

    Returns:
        The kind, recognised by the file that marks such a folder as complete; None for any other
        folder.

    Example:
        >>> folder_kind(Path("no-such-folder"))
    """
    return next((kind for kind in _KINDS if (folder / kind.marker).is_file()), None)


def unfinished_kind(folder: Path) -> FolderKind | None:
    """Return the kind of a folder that a ``cxr`` command began and did not complete.

    Args:
        folder: Path of the folder, which need not exist.

    Returns:
        The kind, recognised by files that an interrupted command left; None for any other folder.

    Example:
        >>> unfinished_kind(Path("no-such-folder"))
    """
    if folder_kind(folder) is not None:
        return None
    for kind in _KINDS:
        if any((folder / name).exists() for name in kind.first_files):
            return kind
    return None


def find_folders(parent: Path) -> dict[KindName, list[Path]]:
    """Return the complete folders of ``cxr`` commands directly inside a folder, by their kind.

    Args:
        parent: Path of the folder, which need not exist.

    Returns:
        Sorted paths by the name of the kind, such as "run". Hidden folders are left out.

    Example:
        >>> find_folders(Path("no-such-folder"))
        {}
    """
    folders: dict[KindName, list[Path]] = {}
    if not os.access(parent, _LIST_PERMISSION):
        return folders
    visible = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
    for path in visible[:_MAX_CHILDREN]:
        if path.is_dir() and os.access(path, _LIST_PERMISSION):
            kind = folder_kind(path)
            if kind is not None:
                folders.setdefault(kind.name, []).append(path)
    return folders


def require_kind(folder: Path, kind_name: KindName) -> None:
    """Check that a folder is complete and of a given kind.

    Args:
        folder: Path of the folder to check.
        kind_name: Name of the required kind, such as "run".

    Raises:
        InputError: The folder is of another kind, unfinished or missing. The message says
            what it is, and which folder to give instead.

    Example:
        >>> require_kind(Path("no-such-folder"), "run")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: no-such-folder: no such folder; ...
    """
    kind = next(kind for kind in _KINDS if kind.name == kind_name)
    if (folder / kind.marker).is_file():
        return
    raise InputError(f"{folder}: {_explanation(folder, kind)}")


def _explanation(folder: Path, required: FolderKind) -> str:
    """Say what is at a path instead of a folder of the required kind, and what to do."""
    if required.name == "predictions":
        general_advice = "give a run, or a folder that cxr predict or cxr import made"
    else:
        article = "an" if required.name == "export" else "a"
        general_advice = f"give {article} {required.name} folder that {required.command_line} made"
    if not folder.exists():
        similar = _similar_folder(folder, required)
        return f"no such folder; {f'did you mean {similar}?' if similar else general_advice}"
    if not folder.is_dir():
        kind_of_parent = folder_kind(folder.parent)
        if kind_of_parent is not None and kind_of_parent.name == required.name:
            return f"is a file, not a folder; give {shlex.quote(str(folder.parent))}"
        return f"is a file, not a folder; {general_advice}"
    actual = folder_kind(folder)
    if actual is not None:
        verb = "holds" if actual.name in _PLURAL else "is"
        advice = _advice_for_other_kind(folder, actual, required) or general_advice
        return f"{verb} {actual.with_article}, not {required.with_article}; {advice}"
    unfinished = unfinished_kind(folder)
    if unfinished is not None:
        return _explanation_of_unfinished(unfinished, required, general_advice)
    if next(folder.iterdir(), None) is None:
        return f"is empty; {general_advice}"
    inner_folders = find_folders(folder)
    if inner_folders:
        suitable = inner_folders.get(required.name, [])
        if required.name == "predictions" and not suitable:
            suitable = inner_folders.get("run", [])  # most commands that take them take a run, too
        return f"{_listed(inner_folders)}; {_advice_to_choose(suitable) or general_advice}"
    if required.name == "data set":  # images as they were published
        general_advice = f"make one of it: cxr prepare {shlex.quote(str(folder))} OUT, and give OUT"
    return f"is not {required.with_article} folder (no {required.marker}); {general_advice}"


def _explanation_of_unfinished(
    unfinished: FolderKind, required: FolderKind, general_advice: str
) -> str:
    article = "" if unfinished.name in _PLURAL else "an "
    name = f"{article}unfinished {unfinished.name}"
    may_become_required = unfinished.name == required.name or {unfinished.name, required.name} == {
        "run",
        "predictions",
    }
    if may_become_required:
        return f"{name}; run the same {unfinished.command_line} again to complete it"
    return f"{name}, not {required.with_article}; {general_advice}"


def _similar_folder(folder: Path, required: FolderKind) -> str | None:
    """Return a folder of the required kind beside a missing one, with a similar name."""
    if not folder.parent.is_dir():
        return None
    siblings = find_folders(folder.parent)
    kinds = [required.name]
    if required.name == "predictions":  # most commands that take them take a run, too
        kinds.append("run")
    names = [path.name for kind in kinds for path in siblings.get(kind, [])]
    matches = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.7)
    return shlex.quote(str(folder.parent / matches[0])) if matches else None


def _listed(folders: dict[KindName, list[Path]]) -> str:
    parts = []
    for kind, paths in folders.items():
        has_plural_name = kind in _PLURAL or len(paths) == 1
        noun = kind if has_plural_name else counted(len(paths), kind)
        names = [path.name for path in paths]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        parts.append(f"the {noun} {listed}")
    return f"it holds {', '.join(parts)}"


def _advice_to_choose(paths: list[Path]) -> str | None:
    if not paths:
        return None
    names = " or ".join(shlex.quote(str(path)) for path in paths[:_MAX_NAMED])
    return f"give one of them, {names}" if len(paths) > 1 else f"give {names}"


def _advice_for_other_kind(folder: Path, actual: FolderKind, required: FolderKind) -> str | None:
    """Say which folder to give, or which command to run, instead of a folder of another kind."""
    if actual.name in SHARDS:
        return f"join all shards first: {join_command(folder, read_marker(folder))}"
    if required.name == "data set":
        return _advice_for_data_set(folder, actual)
    if required.name == "run":
        return _advice_for_run(folder, actual)
    if required.name == "predictions":
        return _advice_for_predictions(folder, actual)
    return None


def _advice_for_data_set(folder: Path, actual: FolderKind) -> str | None:
    if actual.name == "phantom":
        return f"run: cxr prepare {shlex.quote(str(folder))} out/data --format rsna"
    data_set = find_data_set(folder)
    return f"give its data set, {shlex.quote(str(data_set))}" if data_set else None


def _advice_for_run(folder: Path, actual: FolderKind) -> str | None:
    if actual.name == "predictions":
        run = Path(str(_read_json(folder / actual.marker).get("run") or ""))
        return f"give its run, {shlex.quote(str(run))}" if folder_kind(run) else None
    if actual.name == "data set":
        run = folder.parent / "retinanet"
        data = shlex.quote(str(folder))
        return f"train first: cxr train retinanet_small --data {data} --out {run}"
    return None


def _advice_for_predictions(folder: Path, actual: FolderKind) -> str | None:
    if actual.name in ("run", "export"):
        system = shlex.quote(str(folder))
        data = shlex.quote(str(find_data_set(folder) or "DATA"))
        out = shlex.quote(f"{str(folder).rstrip('/')}-predictions")
        return f"predict first: cxr predict {system} --data {data} --out {out}"
    if actual.name == "report" and (folder / "systems").is_dir():
        return _advice_to_choose(find_folders(folder / "systems").get("predictions", []))
    return None


def find_data_set(folder: Path) -> Path | None:
    """Find the folder of the data set that a run, predictions or a report were made from.

    Args:
        folder: A complete folder of a run, export, predictions or report.

    Returns:
        Path of the data set's folder; None if it lies neither beside `folder` nor up to two levels
        above.
    """
    kind = folder_kind(folder)
    if kind is None or kind.name not in (
        "run",
        "export",
        "predictions",
        "report",
    ):
        return None
    record: Any = read_marker(folder)
    if kind.name == "export":
        record = record.get("run") or {}
    elif kind.name == "report":
        record = record.get("provenance") or {}
    content_id = (record.get("data_set") or {}).get("content_id")
    if content_id is None:
        return None
    absolute = folder.absolute()
    for parent in absolute.parents[:3]:  # predictions of a report lie deeper than its data set
        for path in find_folders(parent).get("data set", []):
            if _read_json(path / "dataset.json").get("ids", {}).get("content_id") != content_id:
                continue
            if parent == absolute.parent and folder.name not in ("", ".."):
                return folder.parent / path.name
            return _relative_to_here(path)
    return None


def _relative_to_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def read_marker(folder: Path) -> dict[str, Any]:
    """Return the content of the JSON file that marks a folder as complete, such as ``run.json``.

    Args:
        folder: Path of the folder, which need not exist.

    Returns:
        The content, which is not checked; empty if the folder is not complete.

    Example:
        >>> read_marker(Path("no-such-folder"))
        {}
    """
    kind = folder_kind(folder)
    return {} if kind is None else _read_json(folder / kind.marker)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file unchecked; empty where it cannot be read, which opening it reports."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def join_command(folder: Path, record: Mapping[str, Any]) -> str:
    """Return the command that joins the shards of which a folder holds one.

    Args:
        folder: Folder of the shard.
        record: Its record.
    """
    count = record.get("count")
    name = folder.name.removesuffix(f"-{record.get('number')}-of-{count}")
    others = f"{shlex.quote(str(folder.with_name(name)))}-*-of-{count}"
    return f"{record.get('command')} --join {others}"
