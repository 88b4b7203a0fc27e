"""Addresses of folders in object stores, such as ``s3://bucket/out/data``, and their local copies.

The local copy of a folder is in the user's cache, and its path contains its address:
``.../cxr-remote/s3/bucket/data``. The program therefore works on local paths only, while messages
and records show the address.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError

CACHE_VARIABLE = "CXR_CACHE"
"""Environment variable that names the folder of all local copies."""
_SOURCES_VARIABLE = "CXR_SOURCES"
_SCHEMES = (
    "s3",
    "s3a",
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
    "hdfs",
    "webhdfs",
    "oss",
    "oci",
    "sftp",
    "ssh",
    "smb",
    "webdav",
    "memory",
)
_COPIES_FOLDER = "cxr-remote"
_ADDRESS = re.compile(rf"({'|'.join(_SCHEMES)}):/{{1,2}}([^,]*)")  # a Path keeps one slash of two
_ONE_SLASH = re.compile(rf"\b({'|'.join(_SCHEMES)}):/(?=[^/\s])")
_COPY_PATH = re.compile(rf"(?:[^\s'\"=,;()\[\]{{}}]*/)?{_COPIES_FOLDER}/([a-z][a-z0-9]*)/")


def is_store_address(text: object) -> bool:
    """Return True if a text is the address of a folder or file in an object store.

    Args:
        text: Text such as ``s3://bucket/data``.

    Example:
        >>> is_store_address("s3://bucket/data"), is_store_address("out/data")
        (True, False)
        >>> is_store_address("http://a.b/c")
        False
    """
    return isinstance(text, str) and "://" in text and _ADDRESS.match(text) is not None


def find_store_addresses(value: Any) -> list[str]:
    """Return all addresses in object stores that a command's argument contains.

    Args:
        value: Value of the argument: a text, a path, or a list, tuple or dictionary of them. Other
            values contain no addresses.

    Returns:
        The addresses in their order, without a slash at the end.

    Example:
        >>> find_store_addresses("A=s3://bucket/a,s3://bucket/b/")
        ['s3://bucket/a', 's3://bucket/b']
        >>> find_store_addresses([Path("out"), None, 3])
        []
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [address for item in value for address in find_store_addresses(item)]
    if not isinstance(value, str | Path):
        return []
    return [f"{scheme}://{rest.rstrip('/')}" for scheme, rest in _ADDRESS.findall(str(value))]


def with_local_paths(value: Any) -> Any:
    """Return an argument with each address in an object store replaced by a local path.

    The path is that of the local copy, which need not exist yet.

    Args:
        value: Value of a command's argument: a text, a path, or a list, tuple or dictionary of
            them. Other values stay as they are.

    Returns:
        A value of the same form.

    Raises:
        InputError: An address is not that of a folder, or contains a password.
    """
    if isinstance(value, dict):
        return {name: with_local_paths(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(with_local_paths, value))
    if not isinstance(value, str | Path):
        return value
    text = _ADDRESS.sub(lambda match: str(local_path(f"{match[1]}://{match[2]}")), str(value))
    return Path(text) if isinstance(value, Path) else text


def copies_folder() -> Path:
    """Return the folder of all local copies of folders in object stores.

    It is below the folder in the environment variable ``CXR_CACHE``, or else in the user's cache.

    Raises:
        InputError: The user has no home folder, and ``CXR_CACHE`` is not set.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute() / _COPIES_FOLDER
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            raise InputError(
                "there is no home folder to keep what comes from a store; set "
                f"{CACHE_VARIABLE} to one"
            ) from None
    return cache / "cxr-compare" / _COPIES_FOLDER


def local_path(address: str) -> Path:
    """Return the path of the local copy of a folder in an object store. Nothing is fetched.

    Args:
        address: Address of the folder, such as ``s3://bucket/data``.

    Raises:
        InputError: The address is not that of a folder, or contains a user or password, which the
            message does not repeat.
    """
    scheme, _, rest = address.partition("://")
    without_password = f"{scheme}://{rest.rpartition('@')[2]}"
    if "@" in rest.partition("/")[0]:
        raise InputError(
            f"{without_password}: an address must hold no user and no password, as it is recorded; "
            "give them by the environment (docs/scale.md)"
        )
    parts = rest.rstrip("/").split("/")
    if scheme == "memory":
        parts = [part for part in parts if part]
    if not all(parts) or {".", ".."} & set(parts) or "?" in rest or "\\" in rest:
        raise InputError(
            f"{without_password.partition('?')[0]}: is no address of a folder; SCHEME://BUCKET/PATH"
        )
    return copies_folder().joinpath(scheme, *parts)


def store_address(path: Path) -> str | None:
    """Return the address in an object store of a file or folder in a local copy.

    Args:
        path: A path, which may be one of another machine.

    Returns:
        The address, such as ``s3://bucket/data``; None for a path that is in no local copy.

    Example:
        >>> store_address(Path("/home/me/.cache/cxr-compare/cxr-remote/s3/bucket/data"))
        's3://bucket/data'
        >>> store_address(Path("out/data"))
    """
    if _COPIES_FOLDER not in path.parts:
        return None
    scheme_and_parts = path.parts[path.parts.index(_COPIES_FOLDER) + 1 :]
    if not scheme_and_parts or scheme_and_parts[0] not in _SCHEMES:
        return None
    return f"{scheme_and_parts[0]}://{'/'.join(scheme_and_parts[1:])}"


def path_to_record(path: Path) -> str:
    """Return the text by which a JSON file names a path: an address or an absolute path.

    It is an address if the path is in the local copy of an object store.

    Args:
        path: The path, absolute or relative to the working folder.

    Example:
        >>> path_to_record(Path("/tmp/cxr-remote/s3/bucket/data"))
        's3://bucket/data'
    """
    resolved = path.resolve()
    return store_address(resolved) or str(resolved)


def path_from_record(recorded: str, folder: Path | None = None) -> Path:
    """Return the path that `path_to_record` wrote to a JSON file. Nothing is fetched.

    Args:
        recorded: Text in the JSON file.
        folder: Folder of the JSON file, if another person may have made it. An object store in the
            text is then refused unless a user of this machine has named it: in an earlier command,
            which made a local copy, or in the environment variable ``CXR_SOURCES`` (addresses with
            commas). None accepts any object store.

    Returns:
        The path. For an address it is the path of the local copy.

    Raises:
        InputError: The path is in an object store that no user of this machine has named.

    Example:
        >>> path_from_record("/data/rsna").as_posix()
        '/data/rsna'
    """
    path = local_path(recorded) if is_store_address(recorded) else Path(recorded)
    if folder is not None and _COPIES_FOLDER in path.parts:
        store = _bucket_address(store_address(path) or recorded)
        trusted = os.environ.get(_SOURCES_VARIABLE, "").split(",")
        is_trusted = store in [_bucket_address(text.strip()) for text in trusted]
        if not is_trusted and not (is_store_address(store) and local_path(store).is_dir()):
            raise InputError(
                f"{folder}: its images lie in {store}, which no command here was given; if you "
                f"trust that place, set {_SOURCES_VARIABLE}={store} and run again"
            )
    return path


def _bucket_address(address: str) -> str:
    """Return the part of an address that names the store: scheme and bucket, or host."""
    return "/".join(address.split("/")[:3]) if is_store_address(address) else address


def with_store_addresses(text: str) -> str:
    """Return a text in which paths of local copies are replaced by object store addresses.

    Args:
        text: A message or a line of a report, for people or programs.

    Example:
        >>> with_store_addresses("Run: /home/me/.cache/cxr-compare/cxr-remote/s3/bucket/run")
        'Run: s3://bucket/run'
        >>> with_store_addresses(f"cxr check {Path('s3://bucket/data')}")
        'cxr check s3://bucket/data'
    """
    text = _ONE_SLASH.sub(r"\1://", text)
    if _COPIES_FOLDER not in text:
        return text
    folder = re.escape(str(copies_folder()))
    text = re.sub(rf"{folder}/([a-z][a-z0-9]*)/", r"\1://", text)
    return _COPY_PATH.sub(r"\1://", text)
