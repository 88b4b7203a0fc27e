"""Find the images of a folder by the names that label files give them.

Label files name images loosely: by a path on another machine, by a name alone, or only by having
the same name. Only images below the source folder are ever found.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from cxr_compare.data_prep.formats.folder_scan import list_image_files

_ROLE = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?)"
    r"|(?P<unused>unused|unlabell?ed))(?![a-z])"
)
_LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")


def role_of(text: str) -> str | None:
    """The role that a name or path says: the last folder or file that names one decides.

    Example:
        >>> role_of("labels/train2017"), role_of("valid/images"), role_of("instances_test.json")
        ('train', 'val', 'test')
        >>> role_of("trainval.txt"), role_of("constrained/0001.png")
        (None, None)
    """
    for part in reversed(text.lower().split("/")):
        match = _ROLE.search(part)
        if match:
            return match.lastgroup
    return None


class ImageIndex:
    """The images below a folder, found by what label files call them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.paths: list[str] = list_image_files(root)["path"].tolist()  # relative, sorted
        self._known = set(self.paths)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_place: dict[tuple[str, str], list[str]] = {}
        for path in self.paths:
            folder, name = posixpath.split(path)
            stem = posixpath.splitext(name)[0]
            self._by_name.setdefault(name.lower(), []).append(path)
            self._by_stem.setdefault(stem, []).append(path)
            self._by_place.setdefault((folder, stem), []).append(path)

    def by_name(self, name: str, folders: Iterable[str], role: str | None = None) -> list[str]:
        """Find an image by the name or path that a label file gives."""
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
        folders = list(folders)
        for start in range(len(parts)):
            for folder in folders:
                path = posixpath.normpath(posixpath.join(folder, *parts[start:]))
                if path in self._known or self._is_unlisted(path):
                    return [path]
        if not parts:
            return []
        last = parts[-1]
        stems = (last, posixpath.splitext(last)[0])  # a UID has full stops, and no suffix
        matches = self._by_name.get(last.lower()) or next(
            filter(None, map(self._by_stem.get, stems)), None
        )
        if matches and len(matches) > 1 and role:
            matches = [
                path for path in matches if role_of(posixpath.dirname(path)) == role
            ] or matches
        return matches or []

    def _is_unlisted(self, path: str) -> bool:
        """A file that the label names exactly is an image whatever its suffix, or without one."""
        if path.startswith(("..", "/")) or path.lower().endswith(_LABEL_SUFFIXES):
            return False
        try:
            return (self._root / path).is_file()
        except (OSError, ValueError):  # a name too long, or with a null character
            return False

    def by_stem(self, stem: str, folders: Iterable[str]) -> list[str]:
        """Find an image that has the name of a label file."""
        for folder in folders:
            matches = self._by_place.get((folder, stem))
            if matches:
                return matches
        return self._by_stem.get(stem, [])
