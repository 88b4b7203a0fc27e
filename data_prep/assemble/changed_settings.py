"""The message about a data set folder that was prepared with other options than those of a call."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SHARES = ("val", "test")
# Settings that the user gives by position, and settings that are stored as digests only.
_POSITIONAL = {"source_root": "images in", "labels": "labels in"}
_DIGESTS = {"source_parts": "other data sets", "id_key": "another key of the ids"}


def describe_change(folder: Path, key: str, was: Any, now: Any) -> str:
    """Describe how a setting of a data set folder differs from that of the present call.

    Args:
        folder: Folder of the data set.
        key: Name of the setting, as the folder records it.
        was: Value in the folder; None if the option was not given.
        now: Value of the present call; None if the option is not given.

    Returns:
        The two values as the user types them, and what the user can do.

    Example:
        >>> print(describe_change(Path("set"), "targets", None, {"any": ["mass", "edema"]}))
        was prepared without --target, but this command has --target any=mass,edema; give another
        folder, or leave out --target to use this one as it is
    """
    if key in _DIGESTS:
        return f"was prepared with {_DIGESTS[key]}; give another folder"
    if key in _POSITIONAL:
        names = [" ".join(map(_word, _texts(value))) or "no file" for value in (was, now)]
        return (
            f"was prepared from the {_POSITIONAL[key]} {names[0]}, but this command names "
            f"{names[1]}; give another folder"
        )
    option = _option(key)
    before = f"without {option}" if was is None else f"with {_with_value(option, was)}"
    present = f"has no {option}" if now is None else f"has {_with_value(option, now)}"
    if key in _SHARES:
        draw = f"cxr split {_word(folder)} --name {key}-{now} --{key} {now}"
        other = f"draw a second split in this one: {draw}"
    elif was is None:
        other = f"leave out {option} to use this one as it is"
    else:
        other = f"give {_with_value(option, was)} to use this one as it is"
    return f"was prepared {before}, but this command {present}; give another folder, or {other}"


def _option(key: str) -> str:
    """Return the option of ``cxr prepare`` that a setting records."""
    names = {"targets": "target", "source_format": "format"}
    return f"--{names.get(key, key).replace('_', '-')}"


def _with_value(option: str, value: Any) -> str:
    """Return an option with its value, as the user types it."""
    if isinstance(value, Mapping):
        texts = [f"{name}={','.join(members)}" for name, members in value.items()]
        return " ".join(f"{option} {_word(text)}" for text in texts)
    return f"{option} {_word(','.join(_texts(value)))}"


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _word(text: object) -> str:
    return shlex.quote(str(text))
