"""Search for the images of a folder by the names that label files give them.

A label file may name an image by a path on another machine, by its file name alone, or only by
having the same name itself. Only images below the source folder are ever found.
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


def role_from_path(text: str) -> str | None:
    """Return train, val or test if a file name or path states one of them.

    The last folder or file name that states one of them decides.

    Args:
        text: File name or path.

    Returns:
        ``train``, ``val`` or ``test``; None if the path states none of them.

    Example:
        >>> role_from_path("labels/train2017"), role_from_path("valid/images")
        ('train', 'val')
        >>> role_from_path("trainval.txt"), role_from_path("constrained/0001.png")
        (None, None)
    """
    for part in reversed(text.lower().split("/")):
        match = _ROLE.search(part)
        if match:
            return match.lastgroup
    return None


class ImageIndex:
    """Search for image files below a folder by the names that label files give them.

    Args:
        root: Folder that is searched, at any depth.

    Attributes:
        paths: Paths of all image files, relative to the folder, sorted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.paths: list[str] = list_image_files(root)["path"].tolist()
        self._path_set = set(self.paths)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_folder_and_stem: dict[tuple[str, str], list[str]] = {}
        for path in self.paths:
            folder, name = posixpath.split(path)
            stem = posixpath.splitext(name)[0]
            self._by_name.setdefault(name.lower(), []).append(path)
            self._by_stem.setdefault(stem, []).append(path)
            self._by_folder_and_stem.setdefault((folder, stem), []).append(path)

    def by_name(self, name: str, folders: Iterable[str], role: str | None = None) -> list[str]:
        """Find the files of an image by the name or path that a label file gives it.

        Args:
            name: Name or path in the label file, such as ``train/a.png``; it may be a path of
                another machine.
            folders: Folders in which the image may be, relative to the searched folder, the
                likeliest first.
            role: ``train``, ``val`` or ``test`` if the label file belongs to one of them, else
                None. If several images match, those in a folder of the same name come first.

        Returns:
            The matching paths: exactly one if it is clear which image is meant, otherwise no path
            or several.
        """
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
        folders = list(folders)
        for start in range(len(parts)):
            for folder in folders:
                path = posixpath.normpath(posixpath.join(folder, *parts[start:]))
                if path in self._path_set or self._is_unlisted(path):
                    return [path]
        if not parts:
            return []
        last = parts[-1]
        stems = (last, posixpath.splitext(last)[0])  # a UID has full stops, but no suffix
        matches = self._by_name.get(last.lower(), [])
        for stem in stems:
            matches = matches or self._by_stem.get(stem, [])
        if len(matches) > 1 and role:
            of_role = [p for p in matches if role_from_path(posixpath.dirname(p)) == role]
            return of_role or matches
        return matches

    def _is_unlisted(self, path: str) -> bool:
        """Return True for a file of any suffix that is no label file and that a label names."""
        if path.startswith(("..", "/")) or path.lower().endswith(_LABEL_SUFFIXES):
            return False
        try:
            return (self._root / path).is_file()
        except (OSError, ValueError):  # a name too long, or with a null character
            return False

    def by_stem(self, stem: str, folders: Iterable[str]) -> list[str]:
        """Find the image files that have the same name as a label file, apart from the suffix.

        Args:
            stem: Name of the label file without its suffix.
            folders: Folders in which the image may be, relative to the searched folder, the
                likeliest first.

        Returns:
            The matching paths.
        """
        for folder in folders:
            matches = self._by_folder_and_stem.get((folder, stem))
            if matches:
                return matches
        return self._by_stem.get(stem, [])
