"""Addresses such as ``s3://bucket/out/data``, and the local folder that holds a copy of each.

A local copy lies in the user's cache, and its path says its address:
``.../cxr-remote/s3/bucket/data``. So everything that works on a folder works on a local copy; what
is shown or recorded is the address.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from data_prep.contracts.errors import InputError

CACHE_VARIABLE = "CXR_CACHE"
_SCHEMES = (
    "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "webhdfs", "oss", "oci", "sftp", "ssh",
    "smb", "webdav", "memory",
)  # fmt: skip
_ROOT = "cxr-remote"
_ADDRESS = re.compile(rf"({'|'.join(_SCHEMES)}):/{{1,2}}([^,]*)")  # a Path keeps one slash of two
_ONE_SLASH = re.compile(rf"\b({'|'.join(_SCHEMES)}):/(?=[^/\s])")
_COPY = re.compile(rf"(?:[^\s'\"=,;()\[\]{{}}]*/)?{_ROOT}/([a-z][a-z0-9]*)/")


def is_address(text: object) -> bool:
    """Whether a text is the address of a folder or file in a store.

    Example:
        >>> is_address("s3://bucket/data"), is_address("out/data"), is_address("http://a.b/c")
        (True, False, False)
    """
    return isinstance(text, str) and "://" in text and _ADDRESS.match(text) is not None


def addresses_in(value: Any) -> list[str]:
    """The addresses in the value of an argument: a text, a path, or a sequence or mapping of them.

    Example:
        >>> addresses_in("A=s3://bucket/a,s3://bucket/b/"), addresses_in([Path("out"), None, 3])
        (['s3://bucket/a', 's3://bucket/b'], [])
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [address for item in value for address in addresses_in(item)]
    texts = _ADDRESS.findall(str(value)) if isinstance(value, str | Path) else []
    return [f"{scheme}://{rest.rstrip('/')}" for scheme, rest in texts]


def with_local_paths(value: Any) -> Any:
    """The same value with the paths of local copies instead of addresses."""
    if isinstance(value, dict):
        return {name: with_local_paths(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(with_local_paths, value))
    if not isinstance(value, str | Path):
        return value
    text = _ADDRESS.sub(lambda match: str(local_path(f"{match[1]}://{match[2]}")), str(value))
    return Path(text) if isinstance(value, Path) else text


def copies_root() -> Path:
    """The folder of all local copies: below ``CXR_CACHE``, else in the user's cache."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).absolute() / _ROOT
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "cxr-compare" / _ROOT
    except RuntimeError:
        raise InputError(
            f"there is no home folder to keep what comes from a store; set {CACHE_VARIABLE} to one"
        ) from None


def local_path(address: str) -> Path:
    """Where the local copy of an address lies; nothing is fetched."""
    scheme, _, rest = address.partition("://")
    shown_address = f"{scheme}://{rest.rpartition('@')[2]}"
    if "@" in rest.partition("/")[0]:
        raise InputError(
            f"{shown_address}: an address must hold no user and no password, as it is recorded; "
            "give them by the environment (docs/scale.md)"
        )
    parts = rest.rstrip("/").split("/")
    if scheme == "memory":
        parts = [part for part in parts if part]
    if not all(parts) or {".", ".."} & set(parts) or "?" in rest or "\\" in rest:
        raise InputError(
            f"{shown_address.partition('?')[0]}: is no address of a folder; SCHEME://BUCKET/PATH"
        )
    return copies_root().joinpath(scheme, *parts)


def address_of(path: Path) -> str | None:
    """The address whose local copy a path lies in, on any machine; None of other paths.

    Example:
        >>> address_of(Path("/home/me/.cache/cxr-compare/cxr-remote/s3/bucket/data"))
        's3://bucket/data'
        >>> address_of(Path("out/data"))
    """
    if _ROOT not in path.parts:
        return None
    inner = path.parts[path.parts.index(_ROOT) + 1 :]
    return f"{inner[0]}://{'/'.join(inner[1:])}" if inner and inner[0] in _SCHEMES else None


def recorded_path(path: Path) -> str:
    """How a folder is recorded: by its address, or by its absolute path."""
    resolved = path.resolve()
    return address_of(resolved) or str(resolved)


def path_of(recorded: str) -> Path:
    """The path of what `recorded_path` gave; nothing is fetched."""
    return local_path(recorded) if is_address(recorded) else Path(recorded)


def shown(text: str) -> str:
    """A text for people or programs: addresses instead of the paths of local copies.

    Example:
        >>> shown("Run: /home/me/.cache/cxr-compare/cxr-remote/s3/bucket/run")
        'Run: s3://bucket/run'
        >>> shown(f"cxr check {Path('s3://bucket/data')}")
        'cxr check s3://bucket/data'
    """
    text = _ONE_SLASH.sub(r"\1://", text)
    if _ROOT not in text:
        return text
    root = re.escape(str(copies_root()))
    return _COPY.sub(r"\1://", re.sub(rf"{root}/([a-z][a-z0-9]*)/", r"\1://", text))
