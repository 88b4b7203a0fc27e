"""Pseudonyms: replacement of ids and paths by keyed hashes.

Only a person with the key can tell whether a hash belongs to a known name. (A hash without a key is
no protection: somebody could hash all possible numbers.) With the same key a person has the same
pseudonym in every data set. If the key is lost, the images of a data set can no longer be found in
its source.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import remove_old_temporary_files, temporary_path
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import renamed

KEY_VARIABLE = "CXR_ID_KEY"
"""Environment variable that names the key file when images must be read again."""
KEY_BYTES = 32
"""Length of a new key, bytes."""
KEY_ID_TEXT = "key:"
"""Text whose keyed hash identifies a key without revealing it."""
_MIN_KEY_BYTES = 16
_MAX_KEY_BYTES = 4096
_HEX_DIGITS = 24
_HIDDEN = re.compile(rf"hidden/[0-9a-f]{{{_HEX_DIGITS}}}")


def read_id_key(path: Path, *folders: Path) -> bytes:
    """Read the secret key, 16 to 4,096 bytes, with which ids are hashed.

    If its file does not exist, it is made with random bytes. A file that other users may read, or
    that lies in one of the folders, which may be passed on to other people, is refused.
    """
    path = Path(path)
    for folder in folders:
        if path.resolve().is_relative_to(Path(folder).resolve()):
            raise InputError(
                f"{path}: the key must lie outside {folder}, else whoever gets the folder can undo "
                "the hashes; choose another place"
            )
    if not path.exists():
        _make_key(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is not a file; name a key file, or one to make")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InputError(f"{path}: others may read the key; run: chmod 600 {path}")
    if not _MIN_KEY_BYTES <= status.st_size <= _MAX_KEY_BYTES:
        raise InputError(
            f"{path}: {status.st_size} bytes are no key; it must have {_MIN_KEY_BYTES} to "
            f"{_MAX_KEY_BYTES} random bytes. Name a file that does not exist to have one made"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _make_key(path: Path) -> None:
    """Write a new key under another name first: a half-written key would make data unreadable."""
    remove_old_temporary_files(path.parent)
    temporary = temporary_path(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # another process was faster: its key holds
            path.hardlink_to(temporary)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be made there ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def key_from_environment(key_id: str, folder: Path) -> bytes:
    """Read the secret key of a data set whose image paths were replaced by keyed hashes.

    With the key, the image files of the paths can be found again. The environment variable
    ``CXR_ID_KEY`` names its file. `key_id` is the keyed hash of the constant `KEY_ID_TEXT`, as the
    data set stores it: a key that does not give this hash is that of another data set, and refused.
    """
    name = os.environ.get(KEY_VARIABLE)
    if not name or not Path(name).is_file():
        raise InputError(
            f"{folder}: its paths are keyed hashes; set {KEY_VARIABLE} to the file of the key, or "
            "prepare it with the --size that is needed"
        )
    key = read_id_key(Path(name), folder)
    if keyed_hash(key, KEY_ID_TEXT) != key_id:
        raise InputError(f"{name}: is not the key that {folder} was prepared with")
    return key


def keyed_hash(key: bytes, text: str) -> str:
    """Return the first 24 hexadecimal digits of the HMAC-SHA256 of a text.

    These are 96 bits: among 10^6 names, the chance that any two get the same hash is 10^12 / 2^97,
    or 6e-18.
    """
    message = text.encode("utf-8", errors="surrogateescape")
    return hmac.digest(key, message, "sha256").hex()[:_HEX_DIGITS]


def hide_paths(frame: pd.DataFrame, key: bytes) -> pd.DataFrame:
    """Replace the paths (column ``path``) in a copy of a table by keyed hashes.

    Missing paths, and paths that are hashes already, stay unchanged.

    Example:
        >>> hidden = hide_paths(pd.DataFrame({"path": ["doe/a.png", None]}), b"0123456789abcdef")
        >>> "doe" in hidden["path"][0], hidden["path"].isna().tolist()
        (False, [False, True])
    """
    names = {path: _hide_path(key, path) for path in frame["path"].dropna().unique()}
    return frame.assign(path=renamed(frame["path"], names))


def _hide_path(key: bytes, path: str) -> str:
    return path if _HIDDEN.fullmatch(path) else f"hidden/{keyed_hash(key, f'path:{path}')}"


def find_hidden(root: Path, key: bytes, hashed_paths: Iterable[str]) -> dict[str, Path]:
    """Find the files, at any depth of a folder, whose paths `hide_paths` replaced by keyed hashes.

    The paths are given by hashed path. Files that no longer exist are left out.
    """
    missing = set(hashed_paths)
    files: dict[str, Path] = {}
    for folder, _, names in os.walk(root):
        if not missing:
            break
        relative = Path(folder).relative_to(root)
        for name in names:
            hashed = _hide_path(key, (relative / name).as_posix())
            if hashed in missing:
                missing.discard(hashed)
                files[hashed] = Path(folder) / name
    return files
