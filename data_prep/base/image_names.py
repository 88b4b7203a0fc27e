"""Names of images: which image of a set a name is of, as tables, label files and results write it.

A name is a folder, zeros before a number, a rest, and the ending of a file. Names are compared in
Unicode's form NFC: a Mac writes an accent of a file name as a letter of its own, and a table does
not.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import IMAGE_SUFFIXES

_LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
_OTHER_SUFFIXES = (".npy", ".npz", ".nii", ".gz", ".mha", ".nrrd", ".txt", ".json", ".xml")
_ENDINGS = f"(?:{'|'.join(map(re.escape, (*IMAGE_SUFFIXES, *_OTHER_SUFFIXES)))})*"
_NAME = re.compile(rf"(.*/|)(0+(?=\d+{_ENDINGS}$)|)(.+?|)({_ENDINGS})", re.I | re.S)
_ELSEWHERE = re.compile(r"[/\\]|\.\.|\w+:")  # start of a path on another machine, or an address


class _Parts(NamedTuple):
    folder: str
    zeros: str
    rest: str
    ending: str

    def folders(self) -> str:
        """Return the folders that tell images apart, such as ``/a/b/``; all but ``images``."""
        return f"/{self.folder}".replace("/images/", "/")

    def near(self) -> str:
        """Return the last of these folders, such as ``:b/``, or ``:`` without one."""
        last = self.folders().split("/")[-2] if self.folder else ""
        return f":{last}/" if last else ":"

    def above(self) -> list[str]:
        """Return all folders, the outermost first."""
        names = self.folder.split("/") if self.folder else []
        return [name for name in names if name not in ("", ".")]

    def agrees(self, other: _Parts) -> bool:
        """Return True if no folders or zeros of two names contradict one another."""
        if self.zeros and other.zeros and self.zeros != other.zeros:
            return False
        if not (self.folder and other.folder):
            return True
        folders, other_folders = self.folders(), other.folders()
        return folders.endswith(other_folders) or other_folders.endswith(folders)


_ENDS = (slice(1, 4), slice(1, 3), slice(2, 3))
"""Parts by which images are found, one after the other: the whole last part of a path, and less."""
_NO_ZEROS = 2  # position of the end without them


def _parts(name: str) -> _Parts:
    match = _NAME.fullmatch(unicodedata.normalize("NFC", name).replace("\\", "/"))
    return _Parts(*match.groups()) if match else _Parts("", "", name, "")


def without_ending(name: str) -> str:
    """Return a name with ``/`` and without the ending of a file; a UID has dots, too."""
    has_none = "." not in name and "\\" not in name  # most ids: no need to take them apart
    return unicodedata.normalize("NFC", name) if has_none else "".join(_parts(name)[:-1])


def folders_agree(name: str, other: str) -> bool:
    """Return True if the folder of one of two names is an end of the other's."""
    return _parts(name).agrees(_parts(other))


class Names:
    """The images of a set by their names, and by those that something else gives them.

    Args:
        images: Name of each image: an id, or the path of a file below a folder.
        root: That folder. A path on another machine then says nothing of the folders in it, unless
            it tells two names apart.
    """

    def __init__(self, images: Iterable[str], root: Path | None = None) -> None:
        self.images = list(dict.fromkeys(images))
        self._image_set = set(self.images)
        self._root = root
        self._indexes: dict[int, dict[str, list[str]]] = {}

    @cached_property
    def _parts_of(self) -> dict[str, _Parts]:
        return {image: _parts(image) for image in self.images}

    @cached_property
    def _by_letters(self) -> dict[str, list[str]]:
        """Files by the last part of their paths, and without its ending, in whatever case."""
        index: dict[str, list[str]] = {}
        for image, parts in self._parts_of.items():
            for end in {"".join(parts[end]).casefold() for end in _ENDS[:2]}:
                index.setdefault(end, []).append(image)
        return index

    def _index(self, end: int) -> dict[str, list[str]]:
        """Return the images by an end of their names, alone, and with the folder before it.

        The first two ends also with all folders, as ``/a/b/1.png``.
        """
        if end not in self._indexes:
            index = self._indexes[end] = {}
            for image, parts in self._parts_of.items():
                last = "".join(parts[_ENDS[end]])
                keys = [last, parts.near() + last]
                if end < 2:
                    keys.append("/".join(["/", *parts.above(), last]))
                for key in keys:
                    index.setdefault(key, []).append(image)
        return self._indexes[end]

    def _anywhere(self, parts: _Parts, end: int) -> list[str]:
        """Return the images that have an end of a name, in folders that do not contradict it."""
        index = self._index(end)
        last = "".join(parts[_ENDS[end]])
        near = parts.near()
        keys = [near + last, f":{last}"] if near != ":" else [last]
        images = [image for key in keys for image in index.get(key, ())]
        return [image for image in images if parts.agrees(self._parts_of[image])]

    def find(self, name: str, folders: Sequence[str] = ("",)) -> list[str]:
        """Return the images that one name may be of, by itself.

        The longest end of its path that is an image in one of the folders counts; else the images
        anywhere that have its last part, and folders that do not contradict it; else the same
        without the ending of a file; else files of this last part in another case.
        """
        return self._find(name, _parts(name.rstrip("/")), folders)

    def _find(self, name: str, parts: _Parts, folders: Sequence[str]) -> list[str]:
        above = parts.above()
        for end in (0, 1):
            last = "".join(parts[_ENDS[end]])
            index = self._index(end)
            # The most folders first: of two files of one name, the one meant is in the folder
            # named.
            for start in range(len(above) + 1):
                below = "/".join([*above[start:], last])
                for folder in folders:
                    path = f"{folder}/{below}" if folder else below
                    path = posixpath.normpath(path) if ".." in path else path
                    if images := index.get(f"//{path}"):
                        return images
                    if not end and self._is_unlisted(path):
                        return [path]
            # A path of another machine has folders that are not here; its only file may be
            # anywhere.
            if everywhere := index.get(last):
                is_one = len(everywhere) == 1 and self._is_elsewhere(name)
                return everywhere if is_one else self._anywhere(parts, end)
        # Last, and for files alone: some file systems ignore case, but ids may differ in it.
        last_part = "".join(parts[_ENDS[0]]).casefold()
        alike = self._by_letters.get(last_part, ()) if self._root is not None else ()
        return [image for image in alike if parts.agrees(self._parts_of[image])]

    def _is_elsewhere(self, name: str) -> bool:
        return self._root is not None and _ELSEWHERE.match(name) is not None

    def _is_unlisted(self, path: str) -> bool:
        """Return True for a file below the root, of any suffix, that is no label file."""
        if self._root is None or path.startswith(("..", "/")):
            return False
        try:
            return not path.lower().endswith(_LABEL_SUFFIXES) and (self._root / path).is_file()
        except (OSError, ValueError):  # a name too long, or with a null character
            return False

    def fitting(
        self, names: Iterable[str], folders: Sequence[str] = ("",)
    ) -> tuple[dict[str, list[str]], str]:
        """Return the images that each name fits, and a sentence on names found by parts, if any.

        A name that equals an image is this one; `find` tells of the others. If it finds none for
        some, all that equal none lose the zeros before a number, as the images do. Of files this
        counts only if each name then fits one of its own; else a name that may be of two is of
        both.
        """
        fits, unsure = self._by_paths(names, folders)
        if all(fits.values()):
            return fits, ""
        looser = {name: self._anywhere(parts, _NO_ZEROS) for name, parts in unsure.items()}
        unknown = {name: images for name, images in looser.items() if not fits[name]}
        # A part alone shows which image is meant if all agree: each name has an image of its own,
        # which no other name equals.
        singles = {images[0] for images in looser.values() if len(images) == 1} - fits.keys()
        if len(singles) == len(looser):
            image_of = {name: images[0] for name, images in unknown.items()}
            return fits | unknown, self._note(image_of, "the folder")
        # A part of a name is no proof that a file is meant unless all fit; two files are a doubt.
        if self._root:
            looser = {name: images for name, images in unknown.items() if len(images) > 1}
        return fits | looser, ""

    def _by_paths(
        self, names: Iterable[str], folders: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, _Parts]]:
        """Return images by names or ends of paths, and the names that equal none or fit no two."""
        fits = {name: [name] for name in names}
        parts_of = {name: _parts(name.rstrip("/")) for name in fits if name not in self._image_set}
        for name, parts in parts_of.items():
            fits[name] = self._find(name, parts, folders)
        times = Counter(parts[1:] for parts in parts_of.values())
        unsure: dict[str, _Parts] = {}
        for name, parts in parts_of.items():
            # Folders of another machine say nothing of ours, unless they tell two names apart.
            if self._root and times[parts[1:]] > 1:
                fits[name] = [image for image in fits[name] if folders_agree(name, image)]
            elif self._is_elsewhere(name):
                parts = parts._replace(folder="")
            if len(fits[name]) < 2:
                unsure[name] = parts
        return fits, unsure

    def match(
        self,
        names: Iterable[str],
        where: str,
        among: str = "the truth",
        remedy: str = "give each the name that it has there, or leave it out",
        *,
        partly: bool = False,
    ) -> tuple[dict[str, str], str]:
        """Return the image of each name, and a sentence on how names differ, empty if none does.

        InputError, which names `where` and an example, for a name of no image or two, and for two
        names of one image; `among` is what a message calls the images, and `remedy` what to do
        about names of none. With `partly`, these are left out if others are of images, and none is
        nearly the name of one.

        Examples:
            >>> Names(["a", "0001"]).match(["a", "out/1.png"], "A")[0]
            {'a': 'a', 'out/1.png': '0001'}
        """
        fits, _ = self.fitting(names)
        for name, images in fits.items():
            if len(images) > 1:
                raise InputError(
                    f"{where}: {name!r} may be {images[0]!r} or {images[1]!r} of {among}; write "
                    "each image as it is there"
                )
        unknown = [name for name, images in fits.items() if not images]
        if unknown:
            near = {parts.rest.casefold(): image for image, parts in self._parts_of.items()}
            image_near = {name: near.get(_parts(name).rest.casefold()) for name in unknown}
            first_name = next(filter(image_near.get, unknown), unknown[0])
            image = image_near[first_name]
            example = min(self.images, default="none")
            advice = f"; is it {image!r}?" if image else f", whose images are such as {example!r};"
            if image or not partly or len(unknown) == len(fits):
                raise InputError(
                    f"{where}: {counted(len(unknown), 'image', 'are')} not in {among}, such as "
                    f"{first_name!r}{advice} {remedy}"
                )
        image_of = {name: images[0] for name, images in fits.items() if images}
        first: dict[str, str] = {}
        for name, image in image_of.items():
            if first.setdefault(image, name) != name:
                raise InputError(
                    f"{where}: calls image '{image}' {first[image]!r} and {name!r}; keep one name"
                )
        return image_of, self._note({n: i for n, i in image_of.items() if n != i}, among)

    def _note(self, image_of: Mapping[str, str], among: str) -> str:
        """Return a sentence on names that are not those of their images, empty without any."""
        if all(_parts(name) == self._parts_of[image] for name, image in image_of.items()):
            return ""
        name, image = next(iter(image_of.items()))
        return (
            f"{counted(len(image_of), 'image')} found by another name (such as {name!r} for "
            f"{image!r} of {among})."
        )
