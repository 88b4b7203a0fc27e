"""Label files that belong to one image each, as Pascal VOC, YOLO and labelme write them.

A label file belongs to the image of the same name, or to the image that it names itself. A file
that cannot be read excludes its image, and an image without a file has unknown findings.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypeVar

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.image_index import ImageIndex, role_from_path
from cxr_compare.data_prep.formats.label_files import LabelFiles

Content = TypeVar("Content")
_IMAGE_FOLDERS = ("images", "JPEGImages")
_POSITION = re.compile(r"(?:line|object|shape) \d+: ")


def gather_label_files(
    gathered: LabelFiles,
    index: ImageIndex,
    paths: Iterable[str],
    read: Callable[[str], tuple[Content, Sequence[str]]],
    gather: Callable[[str, Content], None],
    *,
    count: Callable[[Content], int],
) -> dict[str, str]:
    """Gather the labels of each label file, and list the images beside them that have none.

    Args:
        gathered: Labels gathered so far. A file that cannot be read is added to its exclusions.
        index: Images of the source folder.
        paths: Paths of the label files, relative to the source folder.
        read: Function that returns the content of a label file, and the names or paths that the
            file gives its image.
        gather: Function that adds the content of a label file to the labels of its image: all of
            it, or nothing if it raises `InputError`.
        count: Function that returns the number of boxes in the content of a label file. Those of a
            file that `gather` refuses count as boxes that cannot be read.

    Returns:
        Path of the label file by path of its image.
    """
    root = gathered.builder.root
    files: dict[str, str] = {}
    for path in paths:
        near = index.by_stem(stem(path), image_folders(posixpath.dirname(path)))
        image = near[0] if len(near) == 1 else None
        n_boxes = 1
        is_of_boxes = True
        try:
            content, names = read(path)
            n_boxes = count(content)
            is_of_boxes = False
            image = _find_image(path, near, names, index)
            if image in files:
                raise InputError(f"{files[image]} labels the same image")
            is_of_boxes = True
            gather(image, content)
        except InputError as error:
            of_image = f"{root / image}: " if image else ""
            if of_image and str(error).startswith(of_image):
                is_of_boxes = False
                reason = str(error).removeprefix(of_image)
            else:
                reason = _reason(str(error).removeprefix(f"{root / path}: "))
            gathered.add_unread(image or path, reason, n_boxes if is_of_boxes else 0)
        if image:
            files.setdefault(image, path)
    folders = {_without_role(posixpath.dirname(image)) for image in files}
    for image in index.paths:
        if image in files or _without_role(posixpath.dirname(image)) in folders:
            gathered.images.setdefault(image, {})
    return files


def _reason(problem: str) -> str:
    """Return why an image is left out, for a problem of its label file.

    The file is not named: it has the name of its image, and equal reasons are counted together.
    """
    return f"label file{', ' if _POSITION.match(problem) else ': '}{problem}"


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

    Args:
        folder: Path of the folder of labels, relative to the source folder.

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


def stem(path: str) -> str:
    """Return the name of a file without its folder and suffix."""
    return posixpath.splitext(posixpath.basename(path))[0]


@cache
def _without_role(folder: str) -> str:
    """Return a folder without the parts of its path that state train, val or test."""
    return "/".join(part for part in folder.split("/") if role_from_path(part) is None)


def roles_by_folder(files: dict[str, str], images: Iterable[str]) -> list[tuple[str, str]]:
    """Return the images whose folder, or that of their label file, states train, val or test.

    Args:
        files: Path of the label file by path of its image.
        images: Paths of all images.

    Returns:
        Pairs of image path and role.
    """
    stated = [
        (image, role_from_path(posixpath.dirname(files.get(image, image)))) for image in images
    ]
    return [(image, role) for image, role in stated if role]
