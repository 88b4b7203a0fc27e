"""Object stores: addresses such as ``s3://bucket/out/data``, and the files behind them, by fsspec.

A local copy of a folder lies in the user's cache, and its path says its address:
``.../cxr-remote/s3/bucket/data``. So everything that works on a folder works on a local copy; what
is shown or recorded is the address.

fsspec finds credentials in the environment's usual places; none is ever an argument, and none is
shown. What may pass is tried again; size and MD5 as the store states them are checked.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cxr_compare.data_prep.contracts.atomic_files import temporary_path
from cxr_compare.data_prep.contracts.errors import InputError, first_line, require_packages

CACHE_VARIABLE = "CXR_CACHE"
_SOURCES_VARIABLE = "CXR_SOURCES"
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


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, which no other can reach by that name.

    Example:
        >>> is_loopback("localhost"), is_loopback("127.9.9.9"), is_loopback("pacs.example")
        (True, True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


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


def path_of(recorded: str, by: Path | None = None) -> Path:
    """The path of what `recorded_path` gave; nothing is fetched.

    Where the folder `by` that records it may be a stranger's, a store is refused that nobody here
    has named: no command was given it, so that there is no local copy, nor does the environment
    variable ``CXR_SOURCES`` list it (with commas between).
    """
    path = local_path(recorded) if is_address(recorded) else Path(recorded)
    if by is not None and _ROOT in path.parts:
        store, named = _store_of(address_of(path) or recorded), os.environ.get(_SOURCES_VARIABLE)
        is_named = store in [_store_of(text.strip()) for text in (named or "").split(",")]
        if not is_named and not (is_address(store) and local_path(store).is_dir()):
            raise InputError(
                f"{by}: its images lie in {store}, which no command here was given; if you "
                f"trust that place, set {_SOURCES_VARIABLE}={store} and run again"
            )
    return path


def _store_of(address: str) -> str:
    """The part of an address that names the store: scheme and bucket, or host."""
    return "/".join(address.split("/")[:3]) if is_address(address) else address


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


Result = TypeVar("Result")

_PATIENCE_S, _FIRST_PAUSE_S = 30.0, 0.5
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "memory": "fsspec"}
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
        temporary = temporary_path(path)
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
        if package := _PACKAGES.get(scheme):
            require_packages(f"{url}: {scheme}://", "cluster", ["fsspec", package])
        raise InputError(f"{url}: {scheme}:// needs a package: {error}") from None
    except Exception as error:  # noqa: BLE001 - each store raises its own where it cannot log in
        raise _said(url, error, 0.0) from None
    if "s3" in store.protocol:
        store.retries = 1  # a request is tried again below it, a file above it
    return store, str(store._strip_protocol(url))


def _stored(info: dict[str, Any]) -> Stored:
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    md5 = etag if re.fullmatch(r"[0-9a-f]{32}", etag) else None
    if (encoded := info.get("md5Hash")) is not None:
        md5 = base64.b64decode(encoded).hex()
    when = next((info[k] for k in ("LastModified", "mtime", "updated", "created") if k in info), 0)
    changed = _nanoseconds(when)
    generation = info.get("generation") or ""
    size = int(info.get("size") or 0)
    return Stored(size, f"{etag or md5 or ''}/{generation}/{size}/{changed}", md5, changed)


def _nanoseconds(when: Any) -> int:
    """A time as stores give it, in ns since 1970; 0 for what is none."""
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
    text = first_line(error)
    return re.sub(r"\?[^\s\"']*", "", re.sub(r"://[^/\s@]*@", "://***@", text))[:300]
