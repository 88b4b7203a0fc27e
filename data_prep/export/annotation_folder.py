"""The folder into which an export writes label files and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError, counted_phrase
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.export.content import AnnotationContent, ImageEntry
from cxr_compare.data_prep.export.render import RenderTask, render_all
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES


@dataclass
class AnnotationFolder:
    """New folder into which an export writes label files and images for other programs.

    Attributes:
        path: Path of the folder.
        mode: How images are written: ``none`` (not at all), as decoded ``png`` of 8 bits, or as
            symbolic ``link`` to the original file.
        dataset: Data set that is exported.
        advance: Function that is called with the number of images finished since its last call.
        not_exported: One line for each kind of label or fact that the file format cannot hold.
    """

    path: Path
    mode: str
    dataset: DataSet
    advance: Callable[[int], None] = lambda n: None
    not_exported: list[str] = field(default_factory=list)
    _tasks: list[RenderTask] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        """Write a text file below the folder.

        Args:
            name: Path of the file relative to the folder.
            text: Content of the file.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def file_name_of(self, image: ImageEntry) -> str:
        """Return the file name of an image in this folder: its id with a suffix such as ``.png``.

        Args:
            image: Facts about the image.
        """
        if self.mode == "png":
            return f"{image.stem}.png"
        path = Path(image.file or "")
        if self.mode != "none":
            path = self.dataset.image_path(image.image_id)
        return image.stem + (path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ".dcm")

    def put_image(self, image: ImageEntry, name: str) -> None:
        """Write the file of an image into this folder, unless `mode` is ``none``.

        If images are decoded to PNG, this method only collects them, and `render` writes
        them.

        Args:
            image: Facts about the image.
            name: Path of the new file relative to this folder.

        Raises:
            InputError: The original image file no longer exists.
        """
        if self.mode == "none" or image.file is None:
            self.advance(1)
            return
        source = self.dataset.image_file(image.image_id)
        origin = source.path
        target = self.path / name
        if not origin.is_file():
            raise InputError(f"{origin}: the image is gone; bring it back")
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.mode == "png":
            size = (int(image.width or 0), int(image.height or 0)) if image.has_size else None
            self._tasks.append(RenderTask(origin, target, source.sha256, size))
            return
        target.symlink_to(origin.absolute())
        self.advance(1)

    def render(self, workers: int) -> None:
        """Decode the images that `put_image` collected, and write their PNG files.

        Args:
            workers: Largest number of worker processes.
        """
        for _ in render_all(self._tasks, workers=workers):
            self.advance(1)

    def note_loss(self, number: int, text: str) -> None:
        """Add a sentence on labels or facts that the file format cannot hold to `not_exported`.

        Args:
            number: Number of labels, images or other things; 0 records nothing.
            text: Words after the number, which begin with a noun in the plural and a verb, such as
                "ids were changed".
        """
        if number:
            self.not_exported.append(counted_phrase(number, text))


def note_facts_without_columns(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Note the facts of a data set that label files of boxes (COCO, YOLO) have no fields for.

    Args:
        content: Images, labels and boxes that are exported.
        folder: Folder of the export, which collects the notes.
    """
    folder.note_loss(
        int(content.images["patient_id"].nunique()),
        "patients are not exported; read back with --patient-pattern if the ids contain them",
    )
    if content.known_facts():
        folder.not_exported.append(f"{', '.join(content.known_facts())}: not exported")
    folder.note_loss(
        len(content.readers),
        f"readers are not exported; --reader takes one of {', '.join(content.readers)}",
    )
    for name, target in content.targets.items():
        if len(target.any_of) > 1:
            members = ",".join(target.any_of)
            folder.not_exported.append(
                f"the target {name} is not exported; read back with --target {name}={members}"
            )
