"""A cache of shards (files of pixel stores), which are fetched from an object store when read.

All shards of the local copies together take at most ``CXR_CACHE_GIB``. If they would take more, the
least recently used are removed first.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work import object_store
from cxr_compare.data_prep.work.copy_manifest import copies_lock, file_state
from cxr_compare.data_prep.work.store_addresses import copies_folder, store_address

CACHE_LIMIT_VARIABLE = "CXR_CACHE_GIB"
"""Environment variable with the most GiB of shards that may lie on the disk."""
_DEFAULT_LIMIT_GIB = 50.0
_SHARD_NAME = re.compile(r"shard-\d+\.npy")
_FETCH_ATTEMPTS = 2


def is_shard(path: Path) -> bool:
    """Return True if a file name is that of a shard: a file with resized pixels of many images.

    Args:
        path: Path of the file.

    Example:
        >>> is_shard(Path("pixels/letterbox-256/shard-00001.npy")), is_shard(Path("a.npy"))
        (True, False)
    """
    return _SHARD_NAME.fullmatch(path.name) is not None


def fetch_shard(path: Path, sha256: str | None) -> Path:
    """Make sure that a shard (a file with resized pixels of many images) is on the local disk.

    Args:
        path: Path of the shard. Nothing happens if it is not in a local copy of an object store.
        sha256: SHA-256 that the shard must have; None accepts any.

    Returns:
        The same path.

    Raises:
        InputError: The shard is missing, has another checksum, or is larger than the whole cache.
        StoreError: The object store refuses the request or does not answer.
    """
    address = store_address(path)
    if address is None:
        return path
    if not path.is_file():
        with copies_lock("shards"):
            if not path.is_file():  # no other process has fetched it meanwhile
                _fetch(address, path, sha256)
    with suppress(FileNotFoundError):
        # The time of access says when the shard was last used.
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


def cache_limit_bytes() -> int:
    """Return how many bytes of files that were fetched from object stores may stay on the disk.

    Only shards, which are files with resized pixels of many images, are counted.

    Raises:
        InputError: The environment variable ``CXR_CACHE_GIB`` is no number above 0.
    """
    text = os.environ.get(CACHE_LIMIT_VARIABLE, str(_DEFAULT_LIMIT_GIB))
    try:
        limit_gib = float(text)
    except ValueError:
        limit_gib = 0.0
    if not 0 < limit_gib < float("inf"):
        raise InputError(f"{CACHE_LIMIT_VARIABLE}={text}: give a number of GiB above 0")
    return int(limit_gib * 2**30)


def _fetch(address: str, path: Path, sha256: str | None) -> None:
    try:
        stored = object_store.describe(address)
        _make_room(stored.size, address)
        make_folder(path.parent)
        for _ in range(_FETCH_ATTEMPTS):
            stored = object_store.fetch(address, path)
            if sha256 is None or file_digest(path, "sha256") == sha256:
                os.utime(path, ns=(stored.changed_ns, stored.changed_ns))
                return
            path.unlink()
    except FileNotFoundError:
        raise InputError(f"{path}: is gone; prepare the data set again") from None
    raise InputError(
        f"{path}: is not what was written (its SHA-256 differs from the one in pixels.json); "
        f"remove {path.parent} and run cxr prepare again"
    )


def _make_room(required_bytes: int, address: str) -> None:
    """Remove the least recently used shards until one more fits, but none that was not sent."""
    limit = cache_limit_bytes()
    if required_bytes > limit:
        raise InputError(
            f"{address}: has {required_bytes / 2**30:.2f} GiB, more than the cache may hold "
            f"({CACHE_LIMIT_VARIABLE}={limit / 2**30:g}); set it higher"
        )
    shards = [(path.stat(), path) for path in copies_folder().glob("**/shard-*.npy")]
    total = sum(status.st_size for status, _ in shards)
    for status, path in sorted(shards, key=lambda shard: shard[0].st_atime_ns):
        if total + required_bytes <= limit:
            return
        if _is_stored(path):
            path.unlink(missing_ok=True)
            total -= status.st_size


def _is_stored(path: Path) -> bool:
    """Return True if the store holds a shard as it is here: shards get the time of the store."""
    try:
        stored = object_store.describe(str(store_address(path)))
    except FileNotFoundError:
        return False
    return file_state(path) == (stored.size, stored.changed_ns)
