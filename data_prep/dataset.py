"""A prepared data set: its tables, targets, splits and pixels.

The tables are in a folder that ``cxr prepare`` made, or in memory.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.notebook import OpenedFromFolder
from cxr_compare.data_prep.contracts.schemas import (
    FINGERPRINTS,
    REFERENCE_READER,
    SYNTHETIC,
    SYNTHETIC_PATIENT,
)
from cxr_compare.data_prep.contracts.tables import (
    empty_table,
    frame_digest,
    read_table,
    require_members,
    stored_table,
)
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.dataset_info import (
    DataSetIds,
    DataSetInfo,
    SplitInfo,
    SplitOrigin,
)
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.data_prep.work.image_files import require_image_checksum

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.pixel_store import PixelStore
    from cxr_compare.data_prep.work.map_images import Workers
    from cxr_compare.data_prep.work.progress import Progress

_IMAGE_ID_COLUMNS = ("image_id", "patient_id", "file_sha256", "height", "width")
LABEL_COLUMNS = ("image_id", "finding", "reader", "state")
BOX_COLUMNS = ("image_id", "finding", "x1", "y1", "x2", "y2", "reader")
_COVERAGE_COLUMNS = ("image_id", "finding", "reader", "coverage")


def image_labels(image_ids: pd.Series, findings: pd.DataFrame, any_of: Sequence[str]) -> pd.Series:
    """Return the label of each image for findings that together make it positive.

    The label is 1.0 for positive, 0.0 for negative and NaN for unknown, indexed by ``image_id``.
    """
    states = findings.loc[is_member(findings["finding"], any_of), ["image_id", "state"]]
    row = positions(states["image_id"], image_ids)

    def count(state: str) -> np.ndarray:
        has_state = (row >= 0) & (states["state"] == state).to_numpy()
        return np.bincount(row[has_state], minlength=len(image_ids))

    values = np.full(len(image_ids), np.nan)
    values[count("absent") == len(any_of)] = 0.0
    values[count("present") > 0] = 1.0
    return pd.Series(values, index=pd.Index(image_ids), name="label")


@dataclass(frozen=True)
class ImageFile:
    """An image file of a data set, with the facts that reading it needs.

    Attributes:
        sha256: SHA-256 digest that the file had when the data set was prepared; None for a file
            that no data set holds.
    """

    path: Path
    sha256: str | None

    def read(self) -> np.ndarray:
        """Decode the file into the grey levels that a viewer displays, uint8 ``(H, W)``.

        A file that is missing, is no image, or has another digest than `sha256` is refused.
        """
        # Imported here: evaluating without pixels needs no decoder.
        from cxr_compare.data_prep.images.image import read_image

        require_image_checksum(self.path, self.sha256)
        return read_image(self.path).pixels


def _refuse_links_out_of(folder: Path) -> None:
    """Refuse links out of a folder, by which its tables could be those of another data set.

    A pixel store may be a link to another disk: the tables say which images it must hold.
    """
    resolved = folder.resolve()
    for path in (*folder.glob("*.*"), *folder.glob("splits"), *folder.glob("splits/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(resolved):
            raise InputError(f"{path}: is a link out of its folder; put the file itself there")


@dataclass
class DataSet(OpenedFromFolder):
    """A prepared data set of chest X-rays: its tables, labels, boxes, splits and images.

    Each table is read from the folder when it is first used. Several people (readers) may have
    labelled an image. Training and evaluation use only the findings and boxes of the reader
    ``reference``, whose labels may join those of several readers.

    Attributes:
        folder: Folder of the data set; for a data set in memory, the path of the labels that it was
            made of.
        info: Content of the file ``dataset.json`` in the folder.
        summary: Counts for display, if this Python process has just prepared the data set, else
            None.
        tables: Tables in memory by name, such as ``findings``, which replace those of the folder.
        splits: For a data set in memory: by name of a split, the table that assigns each image to
            train, validation or test. Empty for a data set in a folder.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.DataSet.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...InputError: no-such-folder: no such folder; ...
    """

    folder: Path
    info: DataSetInfo
    summary: Any = field(default=None, repr=False, compare=False)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    splits: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> DataSet:
        """Open the folder of a data set that ``cxr prepare`` made.

        Args:
            folder: Path of the folder.

        Returns:
            The data set. Its tables are read when they are first used.

        Raises:
            InputError: The folder is no complete data set.
        """
        folder = Path(folder)
        require_kind(folder, "data set")
        _refuse_links_out_of(folder)
        return cls(folder, DataSetInfo.read(folder / "dataset.json"))

    def __repr__(self) -> str:
        counts = f"{counted(len(self.images), 'image')}, targets {', '.join(self.targets)}"
        return f"<DataSet '{self.name}': {counts}, {self.folder}>"

    def __str__(self) -> str:
        return repr(self) if self.summary is None else "\n".join(self.summary.lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of images and labels, or the content of ``dataset.json``.

        It returns the counts if this Python process has just prepared the data set.
        """
        return self.info.to_json() if self.summary is None else self.summary.to_dict()

    @staticmethod
    def digests(
        images: pd.DataFrame, findings: pd.DataFrame, boxes: pd.DataFrame, coverage: pd.DataFrame
    ) -> DataSetIds:
        """Return digests by which a program recognises equal images and equal labels.

        The order of the rows does not matter.

        Args:
            images: Images table: one row for each image, with patient, path and size.
            findings: Findings table: the state (present, absent, uncertain) of each finding, by
                image and reader.
            boxes: Boxes table: the edges of each lesion in px of the original image, by image,
                finding and reader.
            coverage: Box_coverage table: whether all or only some lesions of an image have a box,
                by finding and reader.

        Returns:
            Digest of the images, and digest of findings, boxes and coverage.
        """
        labels = [
            frame_digest(findings, LABEL_COLUMNS),
            frame_digest(boxes, BOX_COLUMNS),
            frame_digest(coverage, _COVERAGE_COLUMNS),
        ]
        return DataSetIds(
            content_id=frame_digest(images, _IMAGE_ID_COLUMNS),
            labels_id=frame_digest(pd.DataFrame({"part": labels}), ["part"]),
        )

    @property
    def is_in_memory(self) -> bool:
        """True if the data set has no folder, because it was made of labels in memory."""
        return bool(self.splits)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.info.name

    @property
    def targets(self) -> dict[str, Target]:
        """Findings that together make an image positive, by the name under which they count."""
        return self.info.targets

    @property
    def ids(self) -> DataSetIds:
        """Digests of images (``content_id``), labels (``labels_id``) and splits (``split_ids``).

        Data sets with equal digests have equal contents.
        """
        return self.info.ids

    images = stored_table("images.parquet", "images")
    """Images table, one row per image."""
    findings = stored_table("findings.parquet", "findings", REFERENCE_READER)
    """Findings of the reference reader."""
    boxes = stored_table("boxes.parquet", "boxes", REFERENCE_READER)
    """Boxes of the reference reader, px of the original image."""
    box_coverage = stored_table("box_coverage.parquet", "box_coverage", REFERENCE_READER)
    """Images and findings of which the reference reader drew all or some boxes."""

    @cached_property
    def readers(self) -> list[str]:
        """Sorted names of the people (readers) whose own labels are stored.

        The reader ``reference``, whose labels join those of the others, is not in the list.
        """
        return sorted(set(self.optional_table("findings")["reader"]) - {REFERENCE_READER})

    def with_tables(self, tables: Mapping[str, pd.DataFrame]) -> DataSet:
        """Return a copy of the data set with other labels and boxes.

        Args:
            tables: New tables by name, any of ``findings``, ``boxes`` and ``box_coverage``. Their
                rows are those of the reader ``reference``, whose labels training and evaluation
                use.
        """
        replaced = {name: table.reset_index(drop=True) for name, table in tables.items()}
        return DataSet(
            self.folder,
            self.info,
            tables={**self.tables, **replaced},
            splits=self.splits,
        )

    def optional_table(self, name: str) -> pd.DataFrame:
        """Return a table with the rows of all readers, or an empty table if the folder lacks it.

        Args:
            name: Name of the table, such as ``decode`` (facts about the decoded files).

        Raises:
            InputError: The table is damaged, or has a row of an image that is not in the data set.
        """
        if self.is_in_memory:
            return self.tables.get(name, empty_table(name))
        path = self.folder / f"{name}.parquet"
        if path.name not in self.info.files and not path.exists():
            return empty_table(name)
        table = read_table(path, name, files=self.info.files)
        if name not in ("images", "excluded"):
            require_members(table["image_id"], self.images, path)
        return table

    @cached_property
    def decode(self) -> pd.DataFrame:
        """Facts about the decoding of each image file; empty where they were not recorded."""
        return self.optional_table("decode")

    def identities(self, image_ids: pd.Index) -> pd.DataFrame:
        """Return ids and digests by which images and patients are recognised in other data sets.

        Args:
            image_ids: Ids of images of this data set.

        Returns:
            One row for each image in the order of `image_ids`, with ``image_id``, ``patient_id``
            and the columns `FINGERPRINTS` (digest of the pixels and perceptual hash; missing if
            unknown).
        """
        decode = self.decode.set_index("image_id")
        patients = self.images.set_index("image_id")[["patient_id"]].reindex(image_ids)
        fingerprints = decode.reindex(index=image_ids, columns=list(FINGERPRINTS))
        return patients.join(fingerprints).rename_axis("image_id").reset_index()

    @property
    def synthetic(self) -> pd.Series:
        """Flag for each row of the images table: True for an image that ``cxr synth`` drew."""
        images = self.images
        # An export to COCO or another format loses ``source``; ids of the phantom's patients stay.
        has_synthetic_id = images["patient_id"].str.contains(SYNTHETIC_PATIENT)
        return images["source"].eq(SYNTHETIC) | has_synthetic_id

    def target(self, name: str | None = None, *, option: str = "--target NAME") -> Target:
        """Return a target (findings that together make an image positive) by its name.

        Args:
            name: Name of the target, such as ``opacity``. None takes the only target of the data
                set.
            option: Command-line option with which users name the target, for the error message.

        Raises:
            InputError: There is no such target, or the data set has several targets and `name` is
                None.
        """
        names = ", ".join(self.targets)
        if name is None and len(self.targets) != 1:
            raise InputError(f"{self.folder}: has targets {names}; choose one with {option}")
        if name is None:
            name = next(iter(self.targets))
        if name not in self.targets:
            raise InputError(f"{self.folder}: has no target '{name}'; it has {names}")
        return self.targets[name]

    def require_labelled(self, learnt: Mapping[str, str], folder: Path) -> None:
        """Check that this data set has labels of every finding that a model predicts.

        Args:
            learnt: Findings that the model predicts: by the name of a finding (disease) in this
                data set, its name in the model.
            folder: Folder of the model, for the error message.

        Raises:
            InputError: The data set has no labels of a finding.
        """
        labelled = sorted(set(self.findings["finding"]))
        unlabelled = [name for name in learnt if name not in labelled]
        if not unlabelled:
            return
        has = f"{', '.join(labelled)}; prepare it from labels that name it so"
        raise InputError(
            f"{folder}: predicts '{unlabelled[0]}', which {self.folder} does not label; it has "
            f"{has if labelled else 'no labels'}"
        )

    def split(self, name: str = "default") -> pd.DataFrame:
        """Return the table that assigns each image to train, validation or test.

        Args:
            name: Name of the split, that is, of the assignment. A data set may have several.

        Returns:
            One row for each image, with ``image_id``, ``role`` (``train``, ``val``, ``test`` or
            ``unused``) and ``fold`` (number of the cross-validation fold, from 0; missing if there
            is none).

        Raises:
            InputError: There is no such split, or its table is damaged.
        """
        if name in self.splits:
            return self.splits[name]
        path = self.folder / "splits" / f"{name}.parquet"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in path.parent.glob("*.parquet"))) or "none"
            raise InputError(f"{self.folder}: has no split '{name}'; it has {names}")
        record = SplitInfo.read(path.with_suffix(".json"))
        table = read_table(path, "split", files=record.files)
        require_members(table["image_id"], self.images, path)
        return table

    def split_rule(self, name: str) -> SplitOrigin | None:
        """Return the record of how images were assigned to train, validation and test.

        Args:
            name: Name of the split, that is, of the assignment.

        Returns:
            Method, options and notes; None if they were not recorded.
        """
        path = self.folder / "splits" / f"{name}.json"
        return SplitInfo.read(path).how if path.is_file() else None

    def image_ids(self, role: str, split: str = "default") -> pd.Index:
        """Return the sorted ids of the images of a part such as train, validation or test.

        Args:
            role: Name of the part: ``train``, ``val``, ``test`` or ``unused``.
            split: Name of the split, that is, of the assignment of images to these parts.
        """
        table = self.split(split)
        return pd.Index(table.loc[table["role"] == role, "image_id"].sort_values(), name="image_id")

    def labels(self, target: Target) -> pd.Series:
        """Return the label of each image for a target.

        Args:
            target: Findings of this data set that together make an image positive.

        Returns:
            1.0 for positive, 0.0 for negative and NaN for unknown, indexed by ``image_id`` in the
            order of the images table.
        """
        return image_labels(self.images["image_id"], self.findings, target.any_of)

    def boxes_trusted(self, target: Target) -> pd.Index:
        """Return the ids of the images on which every lesion of a target has a box.

        Images without a lesion are among them. Detectors are trained, and boxes evaluated, on these
        images only.

        Args:
            target: Findings of this data set that together make an image positive.

        Returns:
            Ids of such images. Images whose label is unknown are not among them.
        """
        labels = self.labels(target)
        findings = self.findings
        coverage = self.box_coverage
        present = findings[
            findings["finding"].isin(target.any_of) & (findings["state"] == "present")
        ]
        complete = coverage[coverage["coverage"] == "all"]
        keys = ["image_id", "finding"]
        merged = present[keys].merge(complete[keys], on=keys, how="left", indicator=True)
        incomplete = merged.loc[merged["_merge"] == "left_only", "image_id"]
        labelled = labels.index[labels.notna()]
        return labelled[~is_member(labelled, incomplete)]

    def target_boxes(self, target: Target) -> pd.DataFrame:
        """Return the boxes of a target, only of images on which every lesion has a box.

        Args:
            target: Findings of this data set whose boxes are returned.

        Returns:
            A table with columns ``image_id, finding, x1, y1, x2, y2``, edges in px of the original
            image.
        """
        boxes = self.boxes
        is_of_target = boxes["finding"].isin(target.any_of)
        is_trusted = is_member(boxes["image_id"], self.boxes_trusted(target))
        columns = [name for name in BOX_COLUMNS if name != "reader"]
        return boxes.loc[is_of_target & is_trusted, columns].reset_index(drop=True)

    @property
    def has_pixels(self) -> bool:
        """True if every image of the data set has a file, so that models can be run on it."""
        return bool(self.images["path"].notna().all())

    @cached_property
    def image_files(self) -> pd.DataFrame:
        """Table of the image files: ``image_id``, ``path`` below `source_root`, ``file_sha256``.

        Raises:
            InputError: The paths were replaced by keyed hashes and the secret key is missing.
        """
        files = self.images[["image_id", "path", "file_sha256"]]
        key_id = self.info.id_key
        return files if key_id is None else self._with_true_paths(files, key_id)

    def _with_true_paths(self, files: pd.DataFrame, key_id: str) -> pd.DataFrame:
        """Replace paths that are keyed hashes by the true ones, which the key finds."""
        from cxr_compare.data_prep.contracts.pseudonyms import (
            KEY_VARIABLE,
            find_hidden,
            key_from_environment,
        )

        key = key_from_environment(key_id, self.folder)
        paths_by_hash = find_hidden(self.source_root, key, files["path"].dropna())
        is_missing = files["path"].notna() & ~is_member(files["path"], list(paths_by_hash))
        missing = files.loc[is_missing, "image_id"]
        if len(missing):
            raise InputError(
                f"{self.folder}: the file of image '{missing.iloc[0]}' is not below "
                f"{self.source_root} any more ({len(missing)} such images; {KEY_VARIABLE} names "
                "the right key)"
            )
        true_paths = {
            hashed: path.relative_to(self.source_root).as_posix()
            for hashed, path in paths_by_hash.items()
        }
        return files.assign(path=files["path"].map(true_paths).astype(TEXT))

    @cached_property
    def _files(self) -> pd.DataFrame:
        return self.image_files.set_index("image_id")

    @property
    def source_root(self) -> Path:
        """Folder to which the paths of the image files are relative."""
        return Path(self.info.source_root)

    def image_path(self, image_id: str) -> Path:
        """Return the path of the file of an image.

        Args:
            image_id: Id of the image.

        Raises:
            InputError: The image is unknown or has no file.
        """
        path = self._files["path"].get(image_id)
        if path is None or pd.isna(path):
            raise InputError(f"{self.folder}: image '{image_id}' has no file in this data set")
        return self.source_root / str(path)

    def image_file(self, image_id: str) -> ImageFile:
        """Return the file of an image, with the checksum for reading it.

        Args:
            image_id: Id of the image.

        Raises:
            InputError: The image is unknown or has no file.
        """
        sha256 = self._files["file_sha256"].get(image_id)
        return ImageFile(self.image_path(image_id), str(sha256))

    def read_original(self, image_id: str) -> np.ndarray:
        """Decode an image at its original size, as a viewer displays it.

        Args:
            image_id: Id of the image.

        Returns:
            Grey levels, uint8, shape ``(H, W)``.

        Raises:
            InputError: The image has no file, or the file was changed or cannot be read.
        """
        return self.image_file(image_id).read()

    def store(self, size: int) -> PixelStore:
        """Open the pixel store: all images of the data set, resized to squares of one side.

        Args:
            size: Side of the square images, px.

        Raises:
            InputError: The store has not been built, or is damaged.
        """
        from cxr_compare.data_prep.store.pixel_store import PixelStore, pixels_file

        return PixelStore.open(pixels_file(self.folder, size))

    def make_store(
        self, size: int, progress: Progress, workers: Workers | None = None
    ) -> PixelStore:
        """Open the pixel store (all images as squares of one side), and add images that it lacks.

        If another command writes into the data set, the call waits for it.

        Args:
            size: Side of the square images, px.
            progress: Object that shows messages and the progress of decoding to the user.
            workers: Number of processes, or the Ray cluster, that decode; None uses processes of
                this machine.

        Raises:
            InputError: An image has no file or cannot be decoded.
        """
        from cxr_compare.data_prep.contracts.locks import folder_lock
        from cxr_compare.data_prep.store.build_pixel_store import (
            build_pixel_store,
            open_complete_store,
        )

        store = open_complete_store(self.folder, size, self.images["image_id"])
        if store is not None:
            return store
        title = f"Pixels at {size} px"

        def say_waiting() -> None:
            progress.say(f"{title}: another cxr writes into {self.folder}; waiting")

        sides = self.images[["width", "height"]]
        with folder_lock(self.folder, say_waiting), progress.track(title, len(sides)) as advance:
            return build_pixel_store(
                self.folder,
                self.image_files.join(sides),
                self.source_root,
                size,
                workers=workers,
                on_decoded=advance,
            )
