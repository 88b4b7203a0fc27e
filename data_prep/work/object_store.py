"""Access to files in object stores with fsspec.

fsspec finds credentials at the usual places of the environment. They are never an argument and
never shown. A request that fails for a temporary reason is repeated. The size and the MD5 that a
store states are checked.
"""

from __future__ import annotations

import base64
import errno
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cxr_compare.data_prep.contracts.atomic_files import temporary_path
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError, first_line, require_packages

Result = TypeVar("Result")

LONGEST_RETRY_S = 30.0
"""Time for which a failing request is repeated."""
FIRST_PAUSE_S = 0.5
"""Pause before the first repetition; each further one is twice as long."""
PART_BYTES = 64 << 20
"""Size of the parts in which a large file is sent to S3."""
# botocore repeats a request three times by itself; whole files are repeated here.
S3_OPTIONS: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 20,
        "retries": {"mode": "standard", "max_attempts": 3},
    },
    "use_listings_cache": False,
}
"""Options of ``s3fs.S3FileSystem``."""
_OPTIONS = {"s3": S3_OPTIONS, "s3a": S3_OPTIONS, "gs": {"use_listings_cache": False}}
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "memory": "fsspec"}
_CREDENTIALS_ADVICE = "docs/scale.md says where credentials are looked for"
_ACCESS_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|Forbidden|"
    r"credentials|Unauthorized|Anonymous caller",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(r"NoSuchBucket|NoSuchKey|bucket does not exist", re.IGNORECASE)
_LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Buckets whose files are encrypted by a key, so that their ETags are no MD5.
_buckets_without_md5: set[str] = set()


class StoreError(InputError):
    """Error about an object store (such as S3) that refuses a request or does not answer."""


class _DamagedError(OSError):
    """A file arrived otherwise than its store says it is."""


class StoredFile(NamedTuple):
    """Facts about a file that its object store (such as S3) states.

    Attributes:
        size: Size in bytes.
        version: Text that changes whenever the content of the file changes, such as an ETag.
        md5: MD5 digest, 32 hexadecimal digits; None if the store does not state it.
        changed_ns: Time of the last change, ns since 1970; 0 if the store does not state it.
    """

    size: int
    version: str
    md5: str | None
    changed_ns: int


def list_files(url: str) -> dict[str, StoredFile]:
    """List all files below an address in an object store.

    Args:
        url: Address of a folder, a bucket or a file, such as ``s3://bucket/data``.

    Returns:
        Facts of the files by their names relative to the address. If the address is a file, its
        name is "".

    Raises:
        StoreError: There is no such bucket, or the store refuses the request or does not answer.
        InputError: A name in the store cannot be the name of a local file.
    """
    store, root = _file_system(url)
    is_in_memory = "memory" in store.protocol
    bucket, _, folder = root.strip("/").partition("/")

    def list_below_root() -> dict[str, dict[str, Any]]:
        try:
            return store.find(root, detail=True)
        except FileNotFoundError:
            if not folder and not is_in_memory:
                raise
            return {}

    listed = _with_retries(url, list_below_root)
    if not listed and not is_in_memory and not _with_retries(url, lambda: store.exists(bucket)):
        raise StoreError(f"{url}: no such bucket; check the address")
    files = {}
    for name, info in listed.items():
        if info.get("type") == "directory" or name.endswith("/"):
            continue
        relative = name.removeprefix(root.rstrip("/")).strip("/")
        parts = relative.split("/") if relative else []
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise InputError(
                f"{url}: holds {name!r}, which cannot be a file's name here; rename it"
            )
        files[relative] = _stored_file(info)
    return files


def describe(url: str) -> StoredFile:
    """Return the facts that the object store states about one file.

    Args:
        url: Address of the file, such as ``s3://bucket/data/a.png``.

    Raises:
        FileNotFoundError: There is no such file.
        StoreError: The store refuses the request or does not answer.
    """
    store, name = _file_system(url)
    return _stored_file(_with_retries(url, lambda: store.info(name), may_be_missing=True))


def fetch(url: str, path: Path, stored: StoredFile | None = None) -> StoredFile:
    """Fetch one file from an object store; it appears at its path only when it is complete.

    Args:
        url: Address of the file, such as ``s3://bucket/data/a.png``.
        path: Local path, whose folder must exist.
        stored: Facts that the store has just stated about the file, which saves a request; None
            asks the store.

    Returns:
        Facts that the store stated about the fetched content.

    Raises:
        FileNotFoundError: There is no such file.
        StoreError: The store refuses the request, does not answer, or sends damaged bytes again and
            again.
    """
    store, name = _file_system(url)
    bucket = name.strip("/").partition("/")[0]
    wrong_digests: set[str] = set()

    def get() -> StoredFile:
        nonlocal stored
        # The file may have been replaced meanwhile: another attempt asks the store anew.
        expected = stored or _stored_file(store.info(name))
        stored = None
        temporary = temporary_path(path)
        try:
            store.get_file(name, str(temporary))
            _require_size(temporary, expected.size)
            if expected.md5 is not None and bucket not in _buckets_without_md5:
                digest = file_digest(temporary, "md5")
                if digest != expected.md5 and digest not in wrong_digests:
                    wrong_digests.add(digest)
                    raise _DamagedError("what arrived is not what is stored: its MD5 differs")
                if digest != expected.md5:  # the same bytes arrived twice: the ETag is no MD5
                    _buckets_without_md5.add(bucket)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return expected

    return _with_retries(url, get, may_be_missing=True)


def _require_size(path: Path, expected: int) -> None:
    size = path.stat().st_size
    if size != expected:
        raise _DamagedError(f"{size:,} of {expected:,} bytes arrived")


def send(path: Path, url: str) -> StoredFile:
    """Write one file to an object store, where it appears only when it is complete.

    Args:
        path: Path of the local file.
        url: Address that the file gets, such as ``s3://bucket/data/a.png``.

    Returns:
        Facts that the store states about the new file.

    Raises:
        StoreError: The store refuses the request or does not answer.
    """
    store, name = _file_system(url)
    is_s3 = "s3" in store.protocol

    def put() -> StoredFile:
        size = path.stat().st_size
        if "/" in name.strip("/") and not is_s3:
            with suppress(FileExistsError):
                store.makedirs(name.rpartition("/")[0], exist_ok=True)
        options = {"chunksize": PART_BYTES} if is_s3 else {}
        store.put_file(str(path), name, **options)
        stored = _stored_file(store.info(name))
        if stored.size != size:
            raise _DamagedError(f"{stored.size:,} of {size:,} bytes were stored")
        return stored

    return _with_retries(url, put)


def remove(url: str) -> None:
    """Remove one file from an object store. A missing file is no error.

    Args:
        url: Address of the file, such as ``s3://bucket/data/a.png``.

    Raises:
        StoreError: The store refuses the request or does not answer.
    """
    store, name = _file_system(url)
    with suppress(FileNotFoundError):
        _with_retries(url, lambda: store.rm_file(name), may_be_missing=True)


def abort_uploads(url: str) -> int:
    """Remove the sent parts of large files whose upload to S3 was never completed.

    A store keeps such parts, for example of a killed program, and charges for them.

    Args:
        url: Address of a folder in an S3 store; uploads to all files below it are removed.

    Returns:
        Number of uploads that were aborted; 0 for other stores.

    Raises:
        StoreError: The store refuses the request or does not answer.
    """
    store, name = _file_system(url)
    if "s3" not in store.protocol:
        return 0
    bucket, _, prefix = name.strip("/").partition("/")

    def abort() -> int:
        answer = store.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        uploads = answer.get("Uploads", [])
        for upload in uploads:
            names = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            store.call_s3("abort_multipart_upload", Bucket=bucket, **names)
        return len(uploads)

    return _with_retries(url, abort)


def _file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the name there.

    fsspec makes it anew in a forked process.
    """
    scheme = url.partition("://")[0]
    try:
        import fsspec

        store = fsspec.filesystem(scheme, **_OPTIONS.get(scheme, {}))
    except (ImportError, ValueError) as error:
        package = _PACKAGES.get(scheme)
        if package:
            require_packages(f"{url}: {scheme}://", "cluster", ["fsspec", package])
        raise InputError(f"{url}: {scheme}:// needs a package: {error}") from None
    except Exception as error:  # noqa: BLE001 - each store raises its own where it cannot log in
        raise _store_error(url, error, 0.0) from None
    if "s3" in store.protocol:
        store.retries = 1  # requests are repeated by botocore, files by this module
    return store, str(store._strip_protocol(url))


def _stored_file(info: dict[str, Any]) -> StoredFile:
    """Read fsspec's description of a file, whose keys differ between stores."""
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    md5 = etag if re.fullmatch(r"[0-9a-f]{32}", etag) else None
    encoded_md5 = info.get("md5Hash")
    if encoded_md5 is not None:
        md5 = base64.b64decode(encoded_md5).hex()
    time_keys = ("LastModified", "mtime", "updated", "created")
    changed = next((info[key] for key in time_keys if key in info), 0)
    changed_ns = _nanoseconds(changed)
    generation = info.get("generation") or ""
    size = int(info.get("size") or 0)
    version = f"{etag or md5 or ''}/{generation}/{size}/{changed_ns}"
    return StoredFile(size, version, md5, changed_ns)


def _nanoseconds(moment: Any) -> int:
    """Convert a time as stores state it to ns since 1970; 0 for anything else."""
    if isinstance(moment, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(moment)
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    return round(seconds * 1_000_000) * 1000 if isinstance(seconds, int | float) else 0


def _with_retries(
    url: str, request: Callable[[], Result], *, may_be_missing: bool = False
) -> Result:
    """Make a request, and repeat it with longer and longer pauses where that may help.

    With `may_be_missing` a missing file raises FileNotFoundError instead of `StoreError`.
    """
    start = time.monotonic()
    pause = FIRST_PAUSE_S
    while True:
        try:
            return request()
        except InputError:
            raise
        except Exception as error:
            if may_be_missing and isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "no such file", url) from None
            if isinstance(error, OSError) and error.errno in _LOCAL_ERRORS:
                raise
            waited = time.monotonic() - start
            if not _may_pass(error) or waited + pause > LONGEST_RETRY_S:
                raise _store_error(url, error, waited) from None
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - spreads many processes
        pause *= 2


def _may_pass(error: Exception) -> bool:
    """Return True if another attempt may succeed: the store has not answered with a refusal."""
    if isinstance(error, FileNotFoundError | PermissionError | NotImplementedError | ImportError):
        return False
    reason = _reason(error)
    return not _ACCESS_DENIED.search(reason) and not _NOT_FOUND.search(reason)


def _store_error(url: str, error: Exception, waited_s: float) -> StoreError:
    reason = _reason(error)
    if isinstance(error, FileNotFoundError) or _NOT_FOUND.search(reason):
        return StoreError(f"{url}: no such bucket, folder or object; check the address")
    if isinstance(error, PermissionError) or _ACCESS_DENIED.search(reason):
        return StoreError(f"{url}: access is denied ({reason}); {_CREDENTIALS_ADVICE}")
    return StoreError(
        f"{url}: {reason} (tried for {waited_s:.0f} s); check the connection and the endpoint, "
        "then run the same command again to go on"
    )


def _reason(error: Exception) -> str:
    """Return the message of an error in one line without passwords and signatures.

    Example:
        >>> _reason(OSError("no route to http://me:secret@host/a?X-Amz-Signature=1"))
        'no route to http://***@host/a'
    """
    without_password = re.sub(r"://[^/\s@]*@", "://***@", first_line(error))
    return re.sub(r"\?[^\s\"']*", "", without_password)[:300]
