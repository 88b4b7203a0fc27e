"""Image files on a disk or in an object store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES
from cxr_compare.data_prep.work import object_store
from cxr_compare.data_prep.work.store_addresses import store_address

_MIB = 2**20


def file_exists(path: Path) -> bool:
    """Return True if an image file exists on the disk or in its object store.

    A path below the folder of local copies stands for a file in an object store, which need not
    have been fetched.

    Args:
        path: Path of the file, or its path in the local copy of an object store.

    Returns:
        True if `open_image` can open the file.

    Raises:
        StoreError: The object store refuses the request or does not answer.

    Example:
        >>> file_exists(Path("no-such-file"))
        False
    """
    address = store_address(path)
    if address is None or path.is_file():
        return path.is_file()
    try:
        object_store.describe(address)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def open_image(path: Path, sha256: str | None = None) -> Iterator[Path]:
    """Yield the path of an image file on the local disk, which is fetched if necessary.

    A file in an object store is fetched as a temporary copy. The function works on any machine that
    may read the store, with or without a local copy of the folder.

    Args:
        path: Path of the file, or its path in the local copy of an object store.
        sha256: SHA-256 that the file must have. It prevents that the paths and links in a
            stranger's data set give access to other files of this machine. None accepts any file.

    Yields:
        Path of a local file, which may be temporary.

    Raises:
        InputError: The file has another checksum, is missing in the store, or is too large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.png").write_bytes(b"pixels")
        ...     with open_image(Path(folder, "a.png")) as path:
        ...         path.read_bytes()
        b'pixels'
    """
    address = store_address(path)
    if address is None or (path.is_file() and not _is_placeholder(path)):
        _require_checksum(path, path, sha256)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        temporary = Path(folder) / path.name
        _fetch_image(address, path, temporary)
        _require_checksum(temporary, path, sha256)
        try:
            yield temporary
        except InputError as error:  # name the image, and not its temporary copy
            error.args = (str(error).replace(str(temporary), str(path)),)
            raise


def _fetch_image(address: str, path: Path, temporary: Path) -> None:
    try:
        stored = object_store.describe(address)
        if stored.size > MAX_FILE_BYTES:
            raise InputError(
                f"{path}: {stored.size / _MIB:,.0f} MiB is larger than the limit of "
                f"{MAX_FILE_BYTES / _MIB:,.0f} MiB"
            )
        object_store.fetch(address, temporary, stored)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or directory") from None
    os.utime(temporary, ns=(stored.changed_ns, stored.changed_ns))


def _require_checksum(file: Path, path: Path, sha256: str | None) -> None:
    if sha256 is None or not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
        return  # a missing or too large file is refused by the code that reads it
    if file_digest(file, "sha256") != sha256:
        raise InputError(
            f"{path}: is not the file that the data set was made of (its SHA-256 is not the one "
            "in images.parquet); bring it back, or remove the data set and run cxr prepare again"
        )


def _is_placeholder(path: Path) -> bool:
    """Return True if a file begins with zeros alone, as no image file does."""
    with path.open("rb") as file:
        return not any(file.read(4096))
