"""The folder that label files and images are written into."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.export.content import ImageEntry
from cxr_compare.data_prep.export.render import SUFFIXES, RenderTask, render_all
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.work.image_files import file_exists, open_image
from cxr_compare.data_prep.work.store_addresses import store_address


@dataclass
class AnnotationFolder:
    """Where label files and images are put."""

    path: Path
    # `none` puts no images there, `png` and `jpeg` rendered ones, `link` symbolic links, `copy`
    # copies
    mode: str
    dataset: DataSet
    advance: Callable[[int], None] = lambda n: None  # told when an image is done
    cannot: list[str] = field(default_factory=list)  # what the format cannot say, one line each
    _tasks: list[RenderTask] = field(default_factory=list)

    @property
    def renders(self) -> bool:
        """Whether the images are rendered."""
        return self.mode in SUFFIXES

    def write(self, name: str, text: str) -> None:
        """Write a text file below the folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def file_name_of(self, image: ImageEntry) -> str:
        """The image's id as a file's name, with the suffix of its file, or of what is rendered."""
        if self.renders:
            return image.stem + SUFFIXES[self.mode]
        path = Path(image.file or "")
        if self.mode != "none":
            path = self.dataset.image_path(image.image_id)
        return image.stem + (path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ".dcm")

    def put_image(self, image: ImageEntry, name: str) -> None:
        """Put the file of an image below the folder, if files are put at all.

        What is rendered comes with `render`.
        """
        if self.mode == "none" or image.file is None:
            self.advance(1)
            return
        source = self.dataset.image_file(image.image_id)
        origin = source.path
        place = self.path / name
        if not file_exists(origin):
            raise InputError(f"{origin}: the image is gone; bring it back")
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.renders:
            size = (int(image.width or 0), int(image.height or 0)) if image.has_size else None
            self._tasks.append(RenderTask(origin, place, source.window, source.sha256, size))
            return
        if self.mode == "link" and store_address(origin) is None:
            place.symlink_to(origin.absolute())
        else:
            with open_image(origin, sha256=source.sha256) as file:
                shutil.copyfile(file, place)
        self.advance(1)

    def render(self, workers: int) -> None:
        """Render the images that were put."""
        for _ in render_all(self._tasks, workers=workers):
            self.advance(1)

    def cannot_say(self, number: int, text: str) -> None:
        """Remember what the format cannot say, if it is met at all; the text follows the number."""
        if number:
            self.cannot.append(f"{number:,} {text}")
