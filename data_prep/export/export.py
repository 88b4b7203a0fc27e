"""Label files for other programs, from a prepared data set: COCO, Pascal VOC, YOLO, Kaggle CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import require_free_space, whole_folder
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.words import counted
from data_prep.export.content import AnnotationContent, AnnotationFolder, content_of
from data_prep.export.render import SUFFIXES
from data_prep.export.writers import write_coco, write_kaggle, write_voc, write_yolo
from data_prep.formats.source import IMAGE_SUFFIXES
from data_prep.store.dataset import DataSet

_IMAGE_MODES = ("none", *SUFFIXES, "link", "copy")
_USUAL_MODES = {"yolo": "png", "voc": "jpeg"}  # without images their readers load nothing
_BYTES_A_PIXEL = {"png": 1.0, "jpeg": 0.5}  # at most, nearly
WRITERS: dict[str, Callable[[AnnotationContent, AnnotationFolder], None]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "kaggle": write_kaggle,
}


@dataclass(frozen=True)
class ExportSummary:
    """What was written."""

    format: str  # name of the format
    folder: Path  # where it is
    n_images: int  # images of the data set
    n_boxes: int  # boxes of the reader whose labels were written
    cannot: tuple[str, ...]  # what the format could not say, one sentence each

    def to_dict(self) -> dict[str, Any]:
        """The same for a program, ready for JSON."""
        return {
            "format": self.format,
            "folder": str(self.folder),
            "n_images": self.n_images,
            "n_boxes": self.n_boxes,
            "cannot_say": list(self.cannot),
        }

    def __str__(self) -> str:
        done = f"{counted(self.n_images, 'image')}, {counted(self.n_boxes, 'box')}"
        lost = [f"{self.format}: {line}" for line in self.cannot]
        return "\n".join([*lost, f"{self.folder}: {done} in {self.format} format"])

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do with it."""
        return (
            "cxr import PREDICTIONS --data DATA --name NAME --out OUT, for what another program "
            "predicts",
        )


def export_annotations(
    dataset: DataSet,
    out: str | Path,
    format: str,  # noqa: A002 - the option's own name
    *,
    split: str | None = None,
    reader: str = REFERENCE_READER,
    target: str | None = None,
    images: str | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda n: None,
) -> ExportSummary:
    """Write a data set's labels for other programs; the folder appears whole or not at all.

    Args:
        dataset: A prepared data set.
        out: Folder to make; new or empty.
        format: ``coco``, ``voc``, ``yolo`` or ``kaggle``.
        split: Name of the split whose roles are written; no roles if None.
        reader: Whose labels are written.
        target: Write the findings of this target only; all if None. ``kaggle`` holds one target.
        images: Beside the labels: ``png`` or ``jpeg`` (rendered: 8 bits, as the models see them,
            of the original's size), ``link``, ``copy`` or ``none``. By default png for yolo, jpeg
            for voc, whose readers load nothing without images, and none for coco and kaggle.
        workers: Processes that render images; 1 works in this one.
        advance: Told how many images are done.

    Returns:
        What was written, and what the format could not say.
    """
    out = Path(out)
    if format not in WRITERS:
        raise InputError(f"--format {format}: use one of {', '.join(WRITERS)}")
    if images is None:
        images = _USUAL_MODES.get(format, "none") if dataset.has_pixels else "none"
    if images not in _IMAGE_MODES:
        raise InputError(f"--images {images}: use one of {', '.join(_IMAGE_MODES)}")
    if images != "none" and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: has no image files; leave out --images {images}")
    if format == "kaggle":
        target = dataset.target(target).name
    if images == "link" and "id_key" in dataset.info:
        raise InputError(
            f"{dataset.folder}: links would show the paths that its key hides; use --images png"
        )
    content = content_of(dataset, split=split, reader=reader, target=target)
    require_free_space(out, _bytes_needed(content, images))
    with whole_folder(out) as temporary:
        folder = AnnotationFolder(temporary, images, dataset, advance)
        WRITERS[format](content, folder)
        folder.render(workers)
    if images in ("link", "copy") and format != "kaggle":
        suffixes = content.images["file"].str.lower().str.extract(r"(\.[^./]*)$", expand=False)
        folder.cannot_say(
            int((~suffixes.isin(IMAGE_SUFFIXES[:-2])).sum()),
            "images are DICOM, which many programs of this format do not read; --images png "
            "renders them",
        )
    if images == "copy" and "id_key" in dataset.info:
        folder.cannot.append("the copies keep their headers, which may name the patients")
    n_boxes = len(content.dataset.boxes)
    return ExportSummary(format, out, len(content.images), n_boxes, tuple(folder.cannot))


def _bytes_needed(content: AnnotationContent, mode: str) -> int:
    if mode in _BYTES_A_PIXEL:
        pixels = content.images["width"] * content.images["height"]
        return int(pixels.astype("float64").sum() * _BYTES_A_PIXEL[mode])
    if mode != "copy":
        return 0
    paths = (content.dataset.image_path(image_id) for image_id in content.images["image_id"])
    return sum(path.stat().st_size for path in paths if path.is_file())
