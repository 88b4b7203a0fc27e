"""Label files that belong to one image each, as Pascal VOC, YOLO and labelme write them.

A label file belongs to the image of the same name, or to the image that it names itself. A file
that cannot be read excludes its image, and an image without a file has unknown findings.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.annotations import ImageLabels
from cxr_compare.data_prep.sources.image_files import (
    ImageIndex,
    role_from_path,
    roles_of_paths,
    stem,
)
from cxr_compare.data_prep.sources.statements import Source

Content = TypeVar("Content")
_IMAGE_FOLDERS = ("images", "JPEGImages")


def read_image_files(
    source: Source,
    paths: Iterable[str],
    read: Callable[[str], tuple[Content, Sequence[str]]],
    add_marks: Callable[[Source, ImageLabels, Content], None],
) -> Iterator[ImageLabels]:
    """Yield the labels of each image that has a label file, and of the others beside them.

    Those without a file are unknown. Images of other folders, such as masks, do not count. The
    paths of label files are relative to the source folder. `read` returns the content of a label
    file, and the names or paths that it gives its image; `add_marks` adds the marks in a content to
    the labels of an image.
    """
    file_of: dict[str, str] = {}
    for path in paths:
        near = source.files.by_stem(stem(path), image_folders(posixpath.dirname(path)))
        image = near[0] if len(near) == 1 else None
        try:
            content, names = read(path)
        except InputError as error:
            problem = str(error).removeprefix(f"{source.root / path}: ")
            file = f"label file {posixpath.basename(path)}" if image else "label file"
            source.cannot_read(image or path, f"{file}: {problem}")
            continue
        try:
            image = _find_image(path, near, names, source.files)
            if image in file_of:
                raise InputError(f"{file_of[image]} labels the same image")
        except InputError as error:
            file = f"label file {posixpath.basename(path)}" if image else "label file"
            source.exclude([image or path], f"{file}: {error}")
            continue
        file_of[image] = path
        roles = roles_of_paths(posixpath.dirname(path), posixpath.dirname(image))
        labels = ImageLabels(image, path, absent=None, roles=roles)
        add_marks(source, labels, content)
        yield labels
    folders_with_labels = {_without_role(posixpath.dirname(image)) for image in file_of}
    for image in source.files.paths:
        is_near = _without_role(posixpath.dirname(image)) in folders_with_labels
        if image not in file_of and is_near:
            roles = roles_of_paths(posixpath.dirname(image))
            yield ImageLabels(image, image, readers=(), roles=roles)


def _find_image(path: str, near: Sequence[str], names: Sequence[str], index: ImageIndex) -> str:
    """Return the image that a label file is of.

    Refused are a file that fits none or several, and one that names an image other than its own
    name does.
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
