"""Addresses such as ``s3://bucket/out/data``, and the local folder that stands for each: its twin.

A twin lies in the user's cache, and its path says its address: ``.../cxr-remote/s3/bucket/data``.
So everything that works on a folder works on a twin; what is shown or recorded is the address.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from data_prep.contracts.errors import InputError

CACHE_VARIABLE = "CXR_CACHE"
SCHEMES = (
    "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "webhdfs", "oss", "oci", "sftp", "ssh",
    "smb", "webdav", "memory",
)  # fmt: skip
_ROOT = "cxr-remote"
_ADDRESS = re.compile(rf"(?:{'|'.join(SCHEMES)})://[^,]*")
_TWIN = re.compile(rf"(?:[^\s'\"=,;()\[\]{{}}]*/)?{_ROOT}/([a-z][a-z0-9]*)/")


def is_address(text: object) -> bool:
    """Whether a text is the address of a folder or file in a store.

    Example:
        >>> is_address("s3://bucket/data"), is_address("out/data"), is_address("http://a.b/c")
        (True, False, False)
    """
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def addresses_in(word: str) -> list[str]:
    """The addresses in one word of a command line.

    Example:
        >>> addresses_in("A=s3://bucket/a,s3://bucket/b"), addresses_in("out/data")
        (['s3://bucket/a', 's3://bucket/b'], [])
    """
    return _ADDRESS.findall(word) if "://" in word else []


def with_twins(word: str) -> str:
    """A word of a command line with the twins of its addresses in their places."""
    return _ADDRESS.sub(lambda found: str(twin_of(found[0])), word)


def twin_root() -> Path:
    """The folder of all twins: below ``CXR_CACHE``, else in the user's cache."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).absolute() / _ROOT
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "cxr-compare" / _ROOT
    except RuntimeError:
        raise InputError(
            f"there is no home folder to keep what comes from a store; set {CACHE_VARIABLE} to one"
        ) from None


def twin_of(address: str) -> Path:
    """Where the local twin of an address lies.

    Raises:
        InputError: It holds a user or a password, or is not the address of a folder or file.
    """
    scheme, _, rest = address.partition("://")
    shown = f"{scheme}://{rest.rpartition('@')[2]}"
    if "@" in rest.partition("/")[0]:
        raise InputError(
            f"{shown}: an address must hold no user and no password, as it is recorded; give them "
            "by the environment (docs/scale.md)"
        )
    parts = rest.rstrip("/").split("/")
    if scheme == "memory":
        parts = [part for part in parts if part]
    if not all(parts) or {".", ".."} & set(parts) or "?" in rest or "\\" in rest:
        raise InputError(
            f"{shown.partition('?')[0]}: is no address of a folder; SCHEME://BUCKET/PATH"
        )
    return twin_root().joinpath(scheme, *parts)


def address_of(path: Path) -> str | None:
    """The address that a path in a twin stands for, on any machine; None of a local path.

    Example:
        >>> address_of(Path("/home/me/.cache/cxr-compare/cxr-remote/s3/bucket/data"))
        's3://bucket/data'
        >>> address_of(Path("out/data"))
    """
    if _ROOT not in path.parts:
        return None
    inner = path.parts[path.parts.index(_ROOT) + 1 :]
    return f"{inner[0]}://{'/'.join(inner[1:])}" if inner and inner[0] in SCHEMES else None


def place_name(path: Path) -> str:
    """How a folder is recorded: by its address, or by its absolute path."""
    own = path.resolve()
    return address_of(own) or str(own)


def path_of(recorded: str) -> Path:
    """The path of what `place_name` recorded; nothing is fetched."""
    return twin_of(recorded) if is_address(recorded) else Path(recorded)


def shown(text: str) -> str:
    """A text for people or programs: addresses instead of the paths of twins.

    Example:
        >>> shown("Run: /home/me/.cache/cxr-compare/cxr-remote/s3/bucket/run")
        'Run: s3://bucket/run'
    """
    if _ROOT not in text:
        return text
    root = re.escape(str(twin_root()))
    return _TWIN.sub(r"\1://", re.sub(rf"{root}/([a-z][a-z0-9]*)/", r"\1://", text))
