"""Export of the labels of a prepared data set for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.output_folders import atomic_folder
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.export.coco import coco_files
from cxr_compare.data_prep.export.content import AnnotationContent, LabelFiles, select_content
from cxr_compare.data_prep.export.image_writer import write_images
from cxr_compare.data_prep.export.yolo import yolo_files
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES

_IMAGE_MODES = ("none", "png", "link")


@dataclass(frozen=True, repr=False)
class ExportSummary(ShownAsText):
    """Counts of a folder of exported labels, and the labels that its format could not hold.

    Attributes:
        not_exported: One sentence for each kind of label or fact that the format cannot hold.
    """

    format: str
    folder: Path
    n_images: int
    n_boxes: int
    not_exported: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and sentences by name, as values for JSON."""
        return {
            "format": self.format,
            "folder": str(self.folder),
            "n_images": self.n_images,
            "n_boxes": self.n_boxes,
            "not_exported": list(self.not_exported),
        }

    def __str__(self) -> str:
        done = f"{counted(self.n_images, 'image')}, {counted(self.n_boxes, 'box')}"
        lost = [f"{self.format}: {line}" for line in self.not_exported]
        return "\n".join([*lost, f"{self.folder}: {done} in {self.format} format"])


_MAKERS: dict[str, Callable[[AnnotationContent, str], LabelFiles]] = {
    "coco": coco_files,
    "yolo": yolo_files,
}


def export_annotations(
    dataset: DataSet,
    out: str | Path,
    format: str,  # noqa: A002 - the option's own name
    *,
    split: str | None = None,
    reader: str = REFERENCE_READER,
    target: str | None = None,
    images: str | None = None,
    workers: int | None = 1,
    advance: Callable[[int], None] = lambda n: None,
) -> ExportSummary:
    """Write the labels and boxes of a data set in the file format of another program.

    The folder must not exist, and appears only when it is complete. docs/formats.md explains the
    formats; reader, split and target are as in `select_content`. `images` is none, png or link;
    None takes the default of the format. None for `workers` takes all processors to render images.
    `advance` is called with the number of images finished since its last call.
    """
    out = Path(out)
    if format not in _MAKERS:
        raise InputError(f"--format {format}: use one of {', '.join(_MAKERS)}")
    if images is None:
        # Programs cannot read YOLO files without images.
        images = "png" if format == "yolo" and dataset.has_pixels else "none"
    if images not in _IMAGE_MODES:
        raise InputError(f"--images {images}: use one of {', '.join(_IMAGE_MODES)}")
    if images != "none" and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: has no image files; leave out --images {images}")
    if images == "link" and dataset.info.id_key:
        raise InputError(
            f"{dataset.folder}: links would show the paths that its key hides; use --images png"
        )
    content = select_content(dataset, format, split=split, reader=reader, target=target)
    if images == "png":  # a byte a pixel at most, about
        sides = content.images[["width", "height"]].astype("float64")
        require_free_space(out, int(sides.prod(axis=1).sum()))
    files = _MAKERS[format](content, images)
    with atomic_folder(out) as temporary:
        for name, text in files.texts.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if images != "none":
            names = {image_id: temporary / name for image_id, name in files.images.items()}
            processes = cpu_count() if workers is None else workers
            write_images(dataset, names, images, processes, advance)
    if images == "link":
        suffixes = content.images["path"].str.lower().str.extract(r"(\.[^./]*)$", expand=False)
        files.lose(
            int((~suffixes.isin(IMAGE_SUFFIXES[:-2])).sum()),
            "images are DICOM, which many programs do not read; --images png renders them",
        )
    return ExportSummary(format, out, len(content.images), files.n_boxes, tuple(files.losses))
