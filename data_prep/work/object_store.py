"""The one module that talks to object stores: list, fetch, send and remove files by fsspec.

fsspec finds credentials in the environment's usual places; none is ever an argument, and none is
shown. What may pass is tried again; size and MD5 as the store states them are checked.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_prep.contracts.errors import InputError

Result = TypeVar("Result")

_PATIENCE_S, _FIRST_PAUSE_S = 30.0, 0.5
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# The library below tries a request again by itself, three times; files are tried again here.
_S3: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 20,
        "retries": {"mode": "standard", "max_attempts": 3},
    },
    "use_listings_cache": False,
}
_OPTIONS = {"s3": _S3, "s3a": _S3, "gs": {"use_listings_cache": False}}
_PART_BYTES = 64 << 20
_CREDENTIALS = "docs/scale.md says where credentials are looked for"
_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|Forbidden|"
    r"credentials|Unauthorized|Anonymous caller",
    re.IGNORECASE,
)
_LACKING = re.compile(r"NoSuchBucket|NoSuchKey|bucket does not exist", re.IGNORECASE)
_LOCAL_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class StoreError(InputError):
    """A store refuses, or does not answer: no fault of the file that was asked for."""


class _DamagedError(OSError):
    """A file arrived otherwise than its store says it is."""


class Stored(NamedTuple):
    """What a store says of a file."""

    size: int  # bytes
    version: str  # tells this content from any other that the name had or will have
    md5: str | None  # 32 hexadecimal digits; None where the store does not say it
    changed_ns: int  # since 1970; 0 where the store does not say it


def list_files(url: str) -> dict[str, Stored]:
    """All files below an address, by their names relative to it; one file alone has the name ''."""
    store, root = _store(url)
    in_memory = "memory" in store.protocol
    bucket, _, folder = root.strip("/").partition("/")

    def ask() -> dict[str, dict[str, Any]]:
        try:
            return store.find(root, detail=True)
        except FileNotFoundError:
            if not folder and not in_memory:
                raise
            return {}

    listed = _tried(url, ask)
    if not listed and not in_memory and not _tried(url, lambda: store.exists(bucket)):
        raise StoreError(f"{url}: no such bucket; check the address")
    files = {}
    for name, info in listed.items():
        if info.get("type") == "directory" or name.endswith("/"):
            continue
        inner = name.removeprefix(root.rstrip("/")).strip("/")
        if inner and any(part in ("", ".", "..") or "\0" in part for part in inner.split("/")):
            raise InputError(
                f"{url}: holds {name!r}, which cannot be a file's name here; rename it"
            )
        files[inner] = _stored(info)
    return files


def describe(url: str) -> Stored:
    """What the store says of one file; FileNotFoundError where there is none."""
    store, name = _store(url)
    return _stored(_tried(url, lambda: store.info(name), missing=True))


_NO_MD5: set[str] = set()  # buckets whose ETags are no MD5: they are encrypted by a key


def fetch(url: str, path: Path, stored: Stored | None = None) -> Stored:
    """Fetch one file to a path, where it appears whole or not at all; its folder exists.

    What the store has just said of it saves a request. An MD5 that differs is fetched again; where
    the same bytes arrive twice, it was no MD5.
    """
    store, name = _store(url)
    bucket, arrived = name.strip("/").partition("/")[0], set()

    def get() -> Stored:
        nonlocal stored
        # It may have been replaced meanwhile: another attempt asks anew.
        expected, stored = stored or _stored(store.info(name)), None
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            store.get_file(name, str(temporary))
            size = temporary.stat().st_size
            if size != expected.size:
                raise _DamagedError(f"{size:,} of {expected.size:,} bytes arrived")
            if expected.md5 is not None and bucket not in _NO_MD5:
                md5 = file_digest(temporary, "md5")
                if md5 != expected.md5 and md5 not in arrived:
                    arrived.add(md5)
                    raise _DamagedError("what arrived is not what is stored: its MD5 differs")
                if md5 != expected.md5:
                    _NO_MD5.add(bucket)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return expected

    return _tried(url, get, missing=True)


def send(path: Path, url: str) -> Stored:
    """Write one file to a store, where it appears whole or not at all."""
    store, name = _store(url)

    def put() -> Stored:
        size = path.stat().st_size
        if "/" in name.strip("/") and "s3" not in store.protocol:
            with suppress(FileExistsError):
                store.makedirs(name.rpartition("/")[0], exist_ok=True)
        options = {"chunksize": _PART_BYTES} if "s3" in store.protocol else {}
        store.put_file(str(path), name, **options)
        stored = _stored(store.info(name))
        if stored.size != size:
            raise _DamagedError(f"{stored.size:,} of {size:,} bytes were stored")
        return stored

    return _tried(url, put)


def remove(url: str) -> None:
    """Remove one file; one that is gone already is no error."""
    store, name = _store(url)
    with suppress(FileNotFoundError):
        _tried(url, lambda: store.rm_file(name), missing=True)


def end_uploads(url: str) -> int:
    """Remove what a killed program has sent of large files below an S3 address; returns how many.

    A store keeps, and charges for, the parts of an upload that nobody ended.
    """
    store, name = _store(url)
    if "s3" not in store.protocol:
        return 0
    bucket, _, prefix = name.strip("/").partition("/")

    def end() -> int:
        listed = store.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        for upload in (uploads := listed.get("Uploads", [])):
            names = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            store.call_s3("abort_multipart_upload", Bucket=bucket, **names)
        return len(uploads)

    return _tried(url, end)


def file_digest(path: Path, algorithm: str) -> str:
    """Digest of a file's bytes, hexadecimal; here against damage, not against forgery."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()


def _store(url: str) -> tuple[Any, str]:
    """The file system of an address, and the name there; made anew in a forked process."""
    scheme = url.partition("://")[0]
    try:
        import fsspec

        store = fsspec.filesystem(scheme, **_OPTIONS.get(scheme, {}))
    except (ImportError, ValueError) as error:
        package = _PACKAGES.get(scheme)
        advice = "pip install 'cxr-compare[cluster]'" if package or scheme == "memory" else error
        raise InputError(f"{url}: {scheme}:// needs a package: {advice}") from None
    except Exception as error:  # noqa: BLE001 - each store raises its own where it cannot log in
        raise _said(url, error, 0.0) from None
    if "s3" in store.protocol:
        store.retries = 1  # a request is tried again below it, a file above it
    return store, str(store._strip_protocol(url))


def _stored(info: dict[str, Any]) -> Stored:
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    md5 = etag if re.fullmatch(r"[0-9a-f]{32}", etag) else None
    if (encoded := info.get("md5Hash")) is not None:
        import base64

        md5 = base64.b64decode(encoded).hex()
    when = next((info[k] for k in ("LastModified", "mtime", "updated", "created") if k in info), 0)
    changed = _nanoseconds(when)
    generation = info.get("generation") or ""
    size = int(info.get("size") or 0)
    return Stored(size, f"{etag or md5 or ''}/{generation}/{size}/{changed}", md5, changed)


def _nanoseconds(when: Any) -> int:
    """A time as stores give it, in ns since 1970; 0 for what is none."""
    from datetime import datetime

    if isinstance(when, str):
        with suppress(ValueError):
            when = datetime.fromisoformat(when)
    seconds = when.timestamp() if isinstance(when, datetime) else when
    return round(seconds * 1_000_000) * 1000 if isinstance(seconds, int | float) else 0


def _tried(url: str, ask: Callable[[], Result], *, missing: bool = False) -> Result:
    """Ask again and again, with longer and longer pauses, where that may help."""
    start, pause = time.monotonic(), _FIRST_PAUSE_S
    while True:
        try:
            return ask()
        except InputError:
            raise
        except Exception as error:
            if missing and isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "no such file", url) from None
            if isinstance(error, OSError) and error.errno in _LOCAL_FAULTS:
                raise
            waited = time.monotonic() - start
            if not _may_pass(error) or waited + pause > _PATIENCE_S:
                raise _said(url, error, waited) from None
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - many ask at once
        pause *= 2


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: not where the store has answered and refuses."""
    if isinstance(error, FileNotFoundError | PermissionError | NotImplementedError | ImportError):
        return False
    return not _DENIED.search(_reason(error)) and not _LACKING.search(_reason(error))


def _said(url: str, error: Exception, waited: float) -> StoreError:
    reason = _reason(error)
    if isinstance(error, FileNotFoundError) or _LACKING.search(reason):
        return StoreError(f"{url}: no such bucket, folder or object; check the address")
    if isinstance(error, PermissionError) or _DENIED.search(reason):
        return StoreError(f"{url}: access is denied ({reason}); {_CREDENTIALS}")
    return StoreError(
        f"{url}: {reason} (tried for {waited:.0f} s); check the connection and the endpoint, then "
        "run the same command again to go on"
    )


def _reason(error: Exception) -> str:
    """What went wrong, in one line that holds no password and no signature.

    Example:
        >>> _reason(OSError("no route to http://me:secret@host/a?X-Amz-Signature=1"))
        'no route to http://***@host/a'
    """
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return re.sub(r"\?[^\s\"']*", "", re.sub(r"://[^/\s@]*@", "://***@", text))[:300]
