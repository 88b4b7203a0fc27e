"""Label files that belong to one image each, as Pascal VOC, YOLO and labelme write them.

A label file belongs to the image of the same name, or to the image that it names itself. A file
that cannot be read excludes its image, and an image without a file has unknown findings.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.annotations import ImageLabels, LabelFiles
from cxr_compare.data_prep.sources.image_files import ImageIndex, role_from_path, stem

Content = TypeVar("Content")
_IMAGE_FOLDERS = ("images", "JPEGImages")
_POSITION = re.compile(r"(?:line|object|shape) \d+: ")


def read_image_files(
    files: LabelFiles,
    paths: Iterable[str],
    read: Callable[[str], tuple[Content, Sequence[str]]],
    labels_of: Callable[[str, str, Content], ImageLabels],
    *,
    count: Callable[[Content], int],
) -> Iterator[ImageLabels]:
    """Yield the labels of each label file that is of one image, as VOC, YOLO and labelme write it.

    A label file belongs to the image of the same name, or to the image that it names itself. A file
    that cannot be read excludes its image. Images beside labelled ones are unknown without a file.

    Args:
        files: Label files of the source.
        paths: Paths of the label files, relative to the source folder.
        read: Function that returns the content of a label file, and the names or paths that the
            file gives its image.
        labels_of: Function that returns the labels of an image in a file with a content.
        count: Number of boxes in a content. Those of a file that `labels_of` refuses count as boxes
            that cannot be read.
    """
    root = files.source.root
    file_of: dict[str, str] = {}
    read_files: set[str] = set()
    for path in paths:
        near = files.images.by_stem(stem(path), image_folders(posixpath.dirname(path)))
        image = near[0] if len(near) == 1 else None
        n_boxes = 1
        is_of_boxes = True
        try:
            content, names = read(path)
            n_boxes = count(content)
            is_of_boxes = False
            image = _find_image(path, near, names, files.images)
            if image in file_of:
                raise InputError(f"{file_of[image]} labels the same image")
            is_of_boxes = True
            labels = labels_of(image, path, content)
        except InputError as error:
            of_image = f"{root / image}: " if image else ""
            if of_image and str(error).startswith(of_image):
                is_of_boxes = False
                reason = str(error).removeprefix(of_image)
            else:
                problem = str(error).removeprefix(f"{root / path}: ")
                file = f"label file {posixpath.basename(path)}" if image else "label file"
                reason = f"{file}{', ' if _POSITION.match(problem) else ': '}{problem}"
            files.cannot_read(image or path, reason, n_boxes if is_of_boxes else 0)
        else:
            read_files.add(image)
            labels.role = labels.role or _role(path, image)
            yield labels
        if image:
            file_of.setdefault(image, path)
    folders_with_labels = {_without_role(posixpath.dirname(image)) for image in file_of}
    for image in files.images.paths:
        is_near = _without_role(posixpath.dirname(image)) in folders_with_labels
        if image not in read_files and (image in file_of or is_near):
            path = file_of.get(image, image)
            yield ImageLabels(image, path, readers=(), role=_role(path, image))


def _role(path: str, image: str) -> str | None:
    """Return the role that the folder of a label file, else that of its image, states."""
    roles = [role_from_path(posixpath.dirname(name)) for name in (path, image)]
    return next(filter(None, roles), None)


def _find_image(path: str, near: Sequence[str], names: Sequence[str], index: ImageIndex) -> str:
    """Return the image that a label file is of.

    Raises:
        InputError: No image or several fit, or the file names another image than its own name.
    """
    folders = image_folders(posixpath.dirname(path))
    matches = [index.by_name(name, folders) for name in names if name]
    matches = [paths for paths in matches if paths]
    if len(near) == 1:
        stated = next((paths[0] for paths in matches if len(paths) == 1), near[0])
        if stem(stated) != stem(near[0]):
            raise InputError(f"has the name of {near[0]}, but says that it is of {stated}")
        return near[0]
    fitting = matches[0] if matches else near
    if not fitting:
        raise InputError("no such image")
    if len(fitting) > 1:
        raise InputError(f"its name fits {len(fitting)} images")
    return fitting[0]


@cache
def image_folders(folder: str) -> tuple[str, ...]:
    """Return the folders that may hold the images of a folder of labels, the likeliest first.

    Example:
        >>> image_folders("labels/train")[:2]
        ('labels/images', 'labels/JPEGImages')
    """
    parts = folder.split("/") if folder else []
    swapped = [
        "/".join([*parts[:level], name, *parts[level + 1 :]])
        for level in reversed(range(len(parts)))
        for name in _IMAGE_FOLDERS
    ]
    dropped = ["/".join(parts[:n] + parts[n + 1 :]) for n in reversed(range(len(parts)))]
    inner = [posixpath.join(folder, name) for name in _IMAGE_FOLDERS]
    return (*swapped, folder, *dropped, *inner)


@cache
def _without_role(folder: str) -> str:
    """Return a folder without the parts of its path that state train, val or test."""
    return "/".join(part for part in folder.split("/") if role_from_path(part) is None)
