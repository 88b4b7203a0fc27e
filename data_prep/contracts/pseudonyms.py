"""Names that reveal nobody: ids and paths replaced by keyed hashes, and found again with the key.

Whoever has the key can tell whether a hash is of a name that he knows, and nobody else can: a plain
hash of a PatientID is undone by hashing all numbers. One key gives one person one name in every
data set; losing it means that the images of a data set can no longer be found in its source.
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
"""Length of a key that is made here."""
_SHORTEST_KEY, _LONGEST_KEY = 16, 4096
_HEX_DIGITS = 24
_HIDDEN = re.compile(rf"hidden/[0-9a-f]{{{_HEX_DIGITS}}}")


def read_id_key(path: Path, *folders: Path) -> bytes:
    """Read the key, or make one where there is none."""
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
    if not _SHORTEST_KEY <= status.st_size <= _LONGEST_KEY:
        raise InputError(
            f"{path}: {status.st_size} bytes are no key; it must have {_SHORTEST_KEY} to "
            f"{_LONGEST_KEY} random bytes. Name a file that does not exist to have one made"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _make_key(path: Path) -> None:
    """Write a new key under another name first: a half-written one would lock data out."""
    remove_old_temporary_files(path.parent)
    temporary = temporary_path(path)
    try:
        place = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(place, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # another process was faster: its key holds
            path.hardlink_to(temporary)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be made there ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def key_from_environment(wanted: str, folder: Path) -> bytes:
    """The key of a data set whose ids and paths are hashed, for who has to read its files."""
    name = os.environ.get(KEY_VARIABLE)
    if not name or not Path(name).is_file():
        raise InputError(
            f"{folder}: its paths are keyed hashes; set {KEY_VARIABLE} to the file of the key, or "
            "prepare it with the --size that is needed"
        )
    key = read_id_key(Path(name), folder)
    if keyed_hash(key, OF_KEY) != wanted:
        raise InputError(f"{name}: is not the key that {folder} was prepared with")
    return key


OF_KEY = "key:"
"""Its keyed hash names a key: whether another is the same; it reveals nothing."""


def keyed_hash(key: bytes, text: str) -> str:
    """HMAC-SHA256 of a text, its first 24 hexadecimal digits.

    96 bits: the chance that any two of 10^6 names get one hash is 10^12 / 2^97, or 6e-18.
    """
    message = text.encode("utf-8", errors="surrogateescape")
    return hmac.digest(key, message, "sha256").hex()[:_HEX_DIGITS]


def hide_paths(frame: pd.DataFrame, key: bytes) -> pd.DataFrame:
    """Replace the paths in a table that is about to be written."""
    names = {path: _hide_path(key, path) for path in frame["path"].dropna().unique()}
    return frame.assign(path=renamed(frame["path"], names))


def _hide_path(key: bytes, path: str) -> str:
    """What `hide_paths` writes for one path, relative to its folder, with ``/``."""
    return path if _HIDDEN.fullmatch(path) else f"hidden/{keyed_hash(key, f'path:{path}')}"


def find_hidden(root: Path, key: bytes, wanted: Iterable[str]) -> dict[str, Path]:
    """Find the files behind hidden paths, to read their images again."""
    missing = set(wanted)
    found: dict[str, Path] = {}
    for place, _, names in os.walk(root):
        if not missing:
            break
        inside = Path(place).relative_to(root)
        for name in names:
            hidden = _hide_path(key, (inside / name).as_posix())
            if hidden in missing:
                missing.discard(hidden)
                found[hidden] = Path(place) / name
    return found
