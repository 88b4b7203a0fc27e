"""Which kind of cxr folder stands at a path, and what to say where another kind is needed."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.kinds import FOLDER_KINDS, FolderKind, KindName
from cxr_compare.data_prep.work.store_addresses import path_from_record

REPORT_MARKER = "metrics.json"

_KINDS = tuple(kind for kind in FOLDER_KINDS if not kind.is_part)
MARKERS = tuple(kind.marker for kind in _KINDS)
_MAY_LIST = os.R_OK | os.X_OK
_MOST_CHILDREN = 200  # folders within a folder that are looked into


class WrongFolderError(InputError):
    """A folder is not of the kind that is needed."""

    def __init__(self, folder: Path, message: str, *, foreign: bool) -> None:
        super().__init__(message)
        self.folder = folder
        self.foreign = foreign  # cxr wrote neither it nor a folder in it: it may be a download


def kind_of(folder: Path) -> FolderKind | None:
    """The kind of a complete folder; None for any other.

    Example:
        >>> kind_of(Path("no-such-folder"))
    """
    return next((kind for kind in _KINDS if (folder / kind.marker).is_file()), None)


def kind_begun(folder: Path) -> FolderKind | None:
    """The kind of a folder that was begun and not finished; None for any other."""
    if kind_of(folder) is not None:
        return None
    return next((k for k in _KINDS if any((folder / sign).exists() for sign in k.begun)), None)


def folders_within(folder: Path) -> dict[KindName, list[Path]]:
    """Complete folders right below a folder, by kind, each sorted."""
    held: dict[KindName, list[Path]] = {}
    below = folder.iterdir() if os.access(folder, _MAY_LIST) else ()
    for path in sorted(path for path in below if path.name[0] != ".")[:_MOST_CHILDREN]:
        if path.is_dir() and os.access(path, _MAY_LIST) and (kind := kind_of(path)):
            held.setdefault(kind.name, []).append(path)
    return held


def require_kind(folder: Path, wanted: KindName) -> None:
    """Refuse a folder that is not a complete one of a kind, and say what it is."""
    kind = next(each for each in _KINDS if each.name == wanted)
    if (folder / kind.marker).is_file():
        return
    foreign = folder.is_dir() and not (kind_of(folder) or kind_begun(folder))
    foreign = foreign and not folders_within(folder)
    raise WrongFolderError(folder, f"{folder}: {_what_instead(folder, kind)}", foreign=foreign)


def _what_instead(folder: Path, wanted: FolderKind) -> str:
    """What stands where a folder of the wanted kind should, and what to do."""
    give = f"give {wanted.with_article} folder that {wanted.command_line} made"
    if wanted.name == "predictions":
        give = "give a run, or a folder that cxr predict or cxr import made"
    if not folder.exists():
        near = _nearest(folder, wanted)
        return f"no such folder; {f'did you mean {near}?' if near else give}"
    if not folder.is_dir():
        held_by = kind_of(folder.parent)
        own = held_by is not None and held_by.name == wanted.name
        parent = shlex.quote(str(folder.parent))
        return f"is a file, not a folder; {f'give {parent}' if own else give}"
    if found := kind_of(folder):
        is_ = "holds" if found.name == "predictions" else "is"
        return f"{is_} {found.with_article}, not {wanted.with_article}; " + (
            _advice(folder, found, wanted) or give
        )
    if (begun := kind_begun(folder)) is not None:
        again = f"run the same {begun.command_line} again to complete it"
        if begun.name == wanted.name or {begun.name, wanted.name} == {"run", "predictions"}:
            return f"{_unfinished(begun)}; {again}"
        return f"{_unfinished(begun)}, not {wanted.with_article}; {give}"
    if next(folder.iterdir(), None) is None:
        return f"is empty; {give}"
    if held := folders_within(folder):
        fitting = held.get(wanted.name, [])
        if wanted.name == "predictions":  # most commands that take them take a run, too
            fitting = fitting or held.get("run", [])
        return f"{_listed(held)}; {_choose(fitting, give)}"
    return f"is not {wanted.with_article} folder (no {wanted.marker}); {give}"


def _unfinished(kind: FolderKind) -> str:
    return f"{'' if kind.name == 'predictions' else 'an '}unfinished {kind.name}"


def _nearest(folder: Path, wanted: FolderKind) -> str | None:
    """A folder of the wanted kind beside a missing one, with a name much like it."""
    if not folder.parent.is_dir():
        return None
    held, kinds = folders_within(folder.parent), [wanted.name]
    if wanted.name == "predictions":  # most commands that take them take a run, too
        kinds.append("run")
    names = [path.name for kind in kinds for path in held.get(kind, [])]
    found = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.7)
    return shlex.quote(str(folder.parent / found[0])) if found else None


def _listed(held: dict[KindName, list[Path]]) -> str:
    """What a folder holds, in words."""
    parts = []
    for kind, paths in held.items():
        several = kind if kind == "predictions" or not paths[1:] else counted(len(paths), kind)
        names = [path.name for path in paths]
        both = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
        parts.append(f"the {several} {both}")
    return f"it holds {', '.join(parts)}"


def _choose(paths: list[Path], otherwise: str) -> str:
    if not paths:
        return otherwise
    named = " or ".join(shlex.quote(str(path)) for path in paths[:3])
    return f"give {'one of them, ' if paths[1:] else ''}{named}"


def _advice(folder: Path, found: FolderKind, wanted: FolderKind) -> str | None:
    """What to do with a complete folder of another kind than the wanted."""
    place = shlex.quote(str(folder))
    if wanted.name == "data set" and found.name == "phantom":
        return f"run: cxr prepare {place} out/data --format rsna"
    if wanted.name == "data set":
        known = data_set_of(folder)
        return f"give its data set, {shlex.quote(str(known))}" if known else None
    if wanted.name == "run":
        if found.name == "predictions":
            run = path_from_record(str(_read(folder / found.marker).get("run") or ""))
            return f"give its run, {shlex.quote(str(run))}" if kind_of(run) else None
        if found.name == "data set":
            run = folder.parent / "retinanet"
            return f"train first: cxr train retinanet_small --data {place} --out {run}"
        if found.name == "sweep":
            return f"give its best run, {shlex.quote(str(folder / 'best'))}"
    if wanted.name == "predictions":
        if found.name == "sweep":
            return f"give its best run, {shlex.quote(str(folder / 'best'))}"
        if found.name in ("run", "export"):
            data = shlex.quote(str(data_set_of(folder) or "DATA"))
            out = shlex.quote(f"{str(folder).rstrip('/')}-predictions")
            return f"predict first: cxr predict {place} --data {data} --out {out}"
        if found.name == "report" and (folder / "systems").is_dir():
            return _choose(folders_within(folder / "systems").get("predictions", []), "") or None
    return None


def data_set_of(folder: Path) -> Path | None:
    """The data set that a run, predictions or a report were made on, where it lies nearby."""
    kind = kind_of(folder)
    if kind is None or kind.name not in ("run", "export", "predictions", "report", "sweep"):
        return None
    facts = facts_of(folder)
    within = {"export": "run", "report": "provenance"}.get(kind.name)
    made_on = ((facts.get(within) if within else facts) or {}).get("data_set") or {}
    wanted = made_on.get("content_id")
    if wanted is None:
        return None
    own = folder.absolute()
    for above in own.parents[:3]:  # predictions of a report lie deeper than its data set
        for path in folders_within(above).get("data set", []):
            if _read(path / "dataset.json").get("ids", {}).get("content_id") == wanted:
                beside = above == own.parent and folder.name not in ("", "..")
                return folder.parent / path.name if beside else _shortened(path)
    return None


def _shortened(path: Path) -> Path:
    """A path as seen from the folder that the program is called in, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def facts_of(folder: Path) -> dict[str, Any]:
    """What the marker of a complete folder says; empty of any other folder."""
    kind = kind_of(folder)
    return {} if kind is None else _read(folder / kind.marker)


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; empty where it cannot be read, which opening the folder reports."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
