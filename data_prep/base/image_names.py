"""Names of images: which image of a set a name is of, as tables, label files and results write it.

A name is a folder, the eight hexadecimal digits that Label Studio puts before an upload, zeros
before a number, a rest, and the ending of a file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import IMAGE_SUFFIXES

_LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
_OTHER_SUFFIXES = (".npy", ".npz", ".nii", ".gz", ".mha", ".nrrd", ".txt", ".json", ".xml")
_ENDINGS = f"(?:{'|'.join(map(re.escape, (*IMAGE_SUFFIXES, *_OTHER_SUFFIXES)))})*$"
_NAME = re.compile(
    rf"(.*/|)((?-i:[0-9a-f]{{8}}-)(?=.)|)((?:0+(?=\d+{_ENDINGS}))?)(.+?|)({_ENDINGS})", re.I | re.S
)
_ELSEWHERE = re.compile(r"[/\\]|\.\.|\w+:")  # start of a path on another machine, or an address


class _Parts(NamedTuple):
    folder: str
    upload: str
    zeros: str
    rest: str
    ending: str


_WORDS = {
    "ending": "file ending",
    "folder": "folder",
    "upload": "prefix of an upload",
    "zeros": "zeros before a number",
}
"""Parts that a name may have more or fewer than its image, as a message calls them."""


def _parts(name: str) -> _Parts:
    match = _NAME.fullmatch(name.replace("\\", "/"))
    return _Parts(*match.groups()) if match else _Parts("", "", "", name, "")


def without_ending(name: str) -> str:
    """Return a name with ``/`` and without the ending of a file; a UID has dots, too."""
    return "".join(_parts(name)[:-1])


def folders_agree(name: str, other: str) -> bool:
    """Return True if the folder of one of two names is an end of the other's.

    Folders called ``images`` do not count.
    """
    return _ends_agree(_parts(name), _parts(other))


def _ends_agree(one: _Parts, other: _Parts) -> bool:
    here, there = (f"/{parts.folder}".replace("/images/", "/") for parts in (one, other))
    return here.endswith(there) or there.endswith(here)


def _agree(one: _Parts, other: _Parts) -> bool:
    """Return True if two names of one rest have no folder, upload or zeros that contradict."""
    pairs = ((one.upload, other.upload), (one.zeros, other.zeros))
    return _ends_agree(one, other) and all(a == b for a, b in pairs if a and b)


class Names:
    """The images of a set by their names, and by those that something else gives them.

    Args:
        images: Name of each image: an id, or the path of a file below a folder.
        root: That folder. A path from another machine then says nothing of folders in it, unless
            it tells two names apart.
    """

    def __init__(self, images: Iterable[str], root: Path | None = None) -> None:
        self.images = list(dict.fromkeys(images))
        self._known = set(self.images)
        self._root = root
        self._others: dict[str, list[str]] = {}  # names that were learned

    @cached_property
    def _indexes(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return the images by path, and by a last part, which begins with ``/``; and these bare.

        Bare are those without the ending of a file.
        """
        whole: dict[str, list[str]] = {}
        bare: dict[str, list[str]] = {}
        for image in self.images:
            path = posixpath.normpath(image.replace("\\", "/"))
            for index, text in ((whole, path), (bare, without_ending(path))):
                for key in {text, f"/{posixpath.basename(text)}"}:
                    index.setdefault(key, []).append(image)
        return whole, bare

    def find(
        self, name: str, folders: Iterable[str] = ("",), *, unlisted: bool = True
    ) -> list[str]:
        """Return the images that one name may be of, by itself.

        The longest end of its path that is an image in one of the folders counts; else the images
        anywhere that have its last part, and folders that do not contradict it; else the same
        without the ending of a file. Files below the root that are no image by their ending count
        where `unlisted`.
        """
        if name in self._others:
            return self._others[name]
        *above, last = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")] or [""]
        folders = list(folders) if last else []
        for index, end in zip(self._indexes, (last, without_ending(last)), strict=True):
            for start in range(len(above) + 1):
                for folder in folders:
                    path = posixpath.normpath(posixpath.join(folder, *above[start:], end))
                    if path in index:
                        return index[path]
                    if unlisted and index is self._indexes[0] and self._is_unlisted(path):
                        return [path]
            if matches := index.get(f"/{end}"):
                if len(matches) == 1 and self._root and _ELSEWHERE.match(name):
                    return matches
                return [image for image in matches if folders_agree(name, image)]
        return []

    def _is_unlisted(self, path: str) -> bool:
        """Return True for a file of any suffix that is no label file and that a label names."""
        if self._root is None or path.startswith(("..", "/")):
            return False
        try:
            return not path.lower().endswith(_LABEL_SUFFIXES) and (self._root / path).is_file()
        except (OSError, ValueError):  # a name too long, or with a null character
            return False

    def fitting(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the images that each of some names fits: one that equals it, or those of `find`.

        If these are not one for each, all names that equal none lose the prefix of an upload, and
        if need be zeros before a number, as the images do.
        """
        found = {name: [name] if name in self._known else self.find(name) for name in names}
        others = {name: _parts(name) for name in found if name not in self._known}
        if all(len(found[name]) == 1 for name in others):
            return found
        own = {image: _parts(image) for image in self.images}
        for end in (lambda parts: parts.zeros + parts.rest, lambda parts: parts.rest):
            images_of: dict[str, list[str]] = {}
            for image, parts in own.items():
                images_of.setdefault(end(parts), []).append(image)
            for name, parts in others.items():
                same = images_of.get(end(parts), [])
                found[name] = [image for image in same if _agree(parts, own[image])]
            if all(len(found[name]) == 1 for name in others):
                break
        return found

    def match(
        self,
        names: Iterable[str],
        where: str,
        among: str = "the truth",
        remedy: str = "give each the name that it has there, or leave it out",
    ) -> tuple[dict[str, str], str]:
        """Return the image of each name, and a sentence on how names differ, empty if none does.

        InputError, which names `where` and an example, for a name of no image or two, and for two
        names of one image; `among` is what a message calls the images, and `remedy` what to do
        about names of none.

        Examples:
            >>> Names(["a", "0001"]).match(["a", "out/1.png"], "A")[0]
            {'a': 'a', 'out/1.png': '0001'}
        """
        fits = self.fitting(names)
        for name, images in fits.items():
            if len(images) > 1:
                raise InputError(
                    f"{where}: {name!r} may be {images[0]!r} or {images[1]!r} of {among}; write "
                    "each image as it is there"
                )
        unknown = [name for name, images in fits.items() if not images]
        if unknown:
            near = {_parts(image).rest.casefold(): image for image in sorted(self.images)}
            image = near.get(_parts(unknown[0]).rest.casefold())
            some = min(self.images, default="none")
            advice = f"; is it {image!r}?" if image else f", whose images are such as {some!r};"
            raise InputError(
                f"{where}: {counted(len(unknown), 'image', 'are')} not in {among}, such as "
                f"{unknown[0]!r}{advice} {remedy}"
            )
        found = {name: images[0] for name, images in fits.items()}
        first: dict[str, str] = {}
        for name, image in found.items():
            if first.setdefault(image, name) != name:
                raise InputError(
                    f"{where}: calls image '{image}' {first[image]!r} and {name!r}; keep one name"
                )
        return found, _note(found, among)

    def learn(self, names: Iterable[str], taken: Iterable[str] = ()) -> str:
        """Find names that are of no image from now on, if `match` finds one for all of them.

        The images are those that are not `taken` and that none of the other names is of. A name
        that may be of two is found as both. The sentence says how the names differ; it is empty if
        none was learned.
        """
        matches = {name: self.find(name, ("", "images")) for name in dict.fromkeys(names)}
        unknown = [name for name, images in matches.items() if not images]
        if not unknown:
            return ""
        named = {*taken, *chain.from_iterable(matches.values())}
        free = Names(image for image in self.images if image not in named)
        lasts = [posixpath.basename(name.replace("\\", "/")) for name in unknown]
        are_unique = len({*lasts}) == len(lasts)
        spelt = {
            last if are_unique and _ELSEWHERE.match(name) else name: name
            for name, last in zip(unknown, lasts, strict=True)
        }
        fits = free.fitting(spelt)
        found = {name: images[0] for name, images in fits.items() if len(images) == 1}
        if len({*found.values()}) == len(unknown):
            self._others |= {spelt[name]: [image] for name, image in found.items()}
            return _note(found, "the folder")
        self._others |= {spelt[name]: images for name, images in fits.items() if len(images) > 1}
        return ""


def _note(found: Mapping[str, str], among: str) -> str:
    """Return the sentence on names that are not those of their images."""
    others = [name for name, image in found.items() if name != image]
    if not others:
        return ""
    pairs = [(_parts(name), _parts(found[name])) for name in others]
    differ = [
        word
        for part, word in _WORDS.items()
        if any(getattr(one, part) != getattr(two, part) for one, two in pairs)
    ]
    return (
        f"{counted(len(others), 'image')} found by another name: {', '.join(differ)} (such as "
        f"{others[0]!r} for {found[others[0]]!r} of {among})."
    )
