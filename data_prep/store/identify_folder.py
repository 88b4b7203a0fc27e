"""Recognition of the kind of a folder, and advice if another kind is needed."""

from __future__ import annotations

import shlex
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folder_kinds import FOLDER_KINDS, FolderKind, KindName

REPORT_MARKER = "answer.json"
"""File that marks a report folder complete."""

_PLURAL = ("predictions",)  # kinds whose names are plural


def folder_kind(folder: Path) -> FolderKind | None:
    """Return the kind (such as run or report) of a complete folder that a ``cxr`` command made.

    It is recognised by the file that marks such a folder as complete; any other folder, or a path
    without one, has None.
    """
    return next((kind for kind in FOLDER_KINDS if (folder / kind.marker).is_file()), None)


def unfinished_kind(folder: Path) -> FolderKind | None:
    """Return the kind of a folder that a ``cxr`` command began and did not complete, or None.

    It is recognised by files that an interrupted command left.
    """
    if folder_kind(folder) is not None:
        return None
    for kind in FOLDER_KINDS:
        if any((folder / name).exists() for name in kind.first_files):
            return kind
    return None


def require_kind(folder: Path, kind_name: KindName) -> None:
    """Refuse a folder that is of another kind than the given one, unfinished or missing.

    The message says what the folder is, and which to give instead.

    Example:
        >>> require_kind(Path("no-such-folder"), "run")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: no-such-folder: no such folder; ...
    """
    kind = next(kind for kind in FOLDER_KINDS if kind.name == kind_name)
    if (folder / kind.marker).is_file():
        return
    raise InputError(f"{folder}: {_explanation(folder, kind)}")


def _explanation(folder: Path, required: FolderKind) -> str:
    """Say what is at a path instead of a folder of the required kind, and what to do."""
    article = "an" if required.name == "export" else "a"
    advice = f"give {article} {required.name} folder that {required.command_line} made"
    if required.name == "predictions":
        advice = "give a folder that cxr predict made of a data set"
    if not folder.exists():
        return f"no such folder; {advice}"
    if not folder.is_dir():
        return f"is a file, not a folder; {advice}"
    actual = folder_kind(folder)
    unfinished = unfinished_kind(folder)
    if unfinished is not None:
        again = f"run the same {unfinished.command_line} again to complete it"
        return f"holds an unfinished {unfinished.name}; {again}, or {advice}"
    if required.name == "data set" and (actual is None or actual.name == "phantom"):
        advice = f"make one of it: cxr prepare {shlex.quote(str(folder))} OUT, and give OUT"
    if actual is None:
        return f"is not {required.with_article} folder (no {required.marker}); {advice}"
    verb = "holds" if actual.name in _PLURAL else "is"
    return f"{verb} {actual.with_article}, not {required.with_article}; {advice}"
