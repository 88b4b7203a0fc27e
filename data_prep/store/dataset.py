"""A prepared data set: its tables, targets, splits and pixels, opened from its folder."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.json_files import read_json
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
from cxr_compare.data_prep.store.folder_kinds import require_kind
from cxr_compare.data_prep.work.image_files import open_image
from cxr_compare.data_prep.work.local_copies import local_folder
from cxr_compare.data_prep.work.store_addresses import path_from_record

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.pixel_store import PixelStore
    from cxr_compare.data_prep.work.engine import Engine
    from cxr_compare.data_prep.work.progress import Progress

_IMAGE_ID_COLUMNS = ("image_id", "patient_id", "file_sha256", "height", "width")
LABEL_COLUMNS = ("image_id", "finding", "reader", "state")
BOX_COLUMNS = ("image_id", "finding", "x1", "y1", "x2", "y2", "reader")
_COVERAGE_COLUMNS = ("image_id", "finding", "reader", "coverage")


@dataclass(frozen=True)
class Target:
    """What is evaluated: an image is positive if any member finding is present.

    Negative only if all members are absent; otherwise unknown, left out and counted.
    """

    name: str
    any_of: tuple[str, ...]
    display_name: str


def read_displayed(path: Path, window: str | None, sha256: str) -> np.ndarray:
    """Decode a file of a data set, if it is still the same, as it is displayed, uint8 (H, W)."""
    from cxr_compare.data_prep.images.image import (
        read_image,  # evaluating without pixels needs no decoder
    )

    with open_image(path, sha256) as here:
        return read_image(here, window=window).pixels


def _require_own_tables(folder: Path) -> None:
    """Refuse links out of a folder, by which its tables could be those of another data set.

    A pixel store may be a link to another disk: the tables say which images it must hold.
    """
    home = folder.resolve()
    for path in (*folder.glob("*.*"), *folder.glob("splits"), *folder.glob("splits/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise InputError(f"{path}: is a link out of its folder; put the file itself there")


@dataclass
class DataSet:
    """A complete data set folder, read lazily.

    Only the reference reader's findings and boxes are used for training and evaluating.

    Example:
        >>> DataSet.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...WrongFolderError: no-such-folder: no such folder; ...
    """

    folder: Path
    info: dict[str, Any]  # what ``dataset.json`` says
    targets: dict[str, Target] = field(default_factory=dict)  # by name
    # the `data_prep.assemble.summary.Summary` of one that has just been made
    summary: Any = field(default=None, repr=False, compare=False)
    # commands that usually follow
    next_steps: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    # Tables in memory, by name, which take the place of those of the folder.
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    # Splits in memory, by name: only of a set that no folder holds, whose `folder` is its source.
    splits: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> DataSet:
        """Open a folder made by ``cxr prepare``; `InputError` where it is no complete data set."""
        folder = local_folder(folder)
        require_kind(folder, "data set")
        _require_own_tables(folder)
        return cls.of(folder, read_json(folder / "dataset.json", "dataset"))

    @classmethod
    def of(cls, folder: str | Path, info: dict[str, Any], **held: Any) -> DataSet:
        """A set by what ``dataset.json`` says, or would say; with other fields."""
        targets = {
            name: Target(name, tuple(spec["any_of"]), spec.get("display_name", name))
            for name, spec in info["targets"].items()
        }
        return cls(Path(folder), info, targets, **held)

    def __repr__(self) -> str:
        counts = f"{counted(len(self.images), 'image')}, targets {', '.join(self.targets)}"
        return f"<DataSet '{self.name}': {counts}, {self.folder}>"

    def __str__(self) -> str:
        return repr(self) if self.summary is None else "\n".join(self.summary.lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """What came in and was left out, where it has just been made; else ``dataset.json``."""
        return self.info if self.summary is None else self.summary.to_dict()

    @staticmethod
    def digests(
        images: pd.DataFrame, findings: pd.DataFrame, boxes: pd.DataFrame, coverage: pd.DataFrame
    ) -> dict[str, str]:
        """Ids of the content and of the labels, whatever the order of the rows."""
        labels = [
            frame_digest(findings, LABEL_COLUMNS),
            frame_digest(boxes, BOX_COLUMNS),
            frame_digest(coverage, _COVERAGE_COLUMNS),
        ]
        return {
            "content_id": frame_digest(images, _IMAGE_ID_COLUMNS),
            "labels_id": frame_digest(pd.DataFrame({"part": labels}), ["part"]),
        }

    @property
    def is_in_memory(self) -> bool:
        """True if no folder holds the data set: it was made of labels alone, for one evaluation."""
        return bool(self.splits)

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.info["name"])

    @property
    def ids(self) -> dict[str, Any]:
        """``content_id``, ``labels_id`` and ``split_ids`` (a mapping by split name)."""
        return {"split_ids": {}, **self.info["ids"]}

    images = stored_table("images.parquet", "images")
    """The images table, one row an image."""
    findings = stored_table("findings.parquet", "findings", REFERENCE_READER)
    """The reference reader's findings."""
    boxes = stored_table("boxes.parquet", "boxes", REFERENCE_READER)
    """The reference reader's boxes, original pixels."""
    box_coverage = stored_table("box_coverage.parquet", "box_coverage", REFERENCE_READER)
    """For which images and findings the reference reader drew all or some boxes."""

    @cached_property
    def readers(self) -> list[str]:
        """The readers whose own labels are kept beside the reference, sorted."""
        return sorted(set(self.optional_table("findings")["reader"]) - {REFERENCE_READER})

    def labelled_by(self, reader: str, image_ids: pd.Index | None = None) -> DataSet:
        """The same set, on some images or all with a reader's labels and boxes as the reference."""
        tables = {}
        for name in ("findings", "boxes", "box_coverage"):
            table = self.optional_table(name)
            ids = table["image_id"] if image_ids is None else image_ids
            wanted = np.where(is_member(table["image_id"], ids), reader, REFERENCE_READER)
            tables[name] = table[table["reader"] == wanted]
        return self.with_tables(tables)

    def with_tables(self, tables: Mapping[str, pd.DataFrame]) -> DataSet:
        """The same set with other ``findings``, ``boxes`` or ``box_coverage`` of the reference."""
        chosen = {name: table.reset_index(drop=True) for name, table in tables.items()}
        return DataSet(
            self.folder,
            self.info,
            self.targets,
            tables={**self.tables, **chosen},
            splits=self.splits,
        )

    def optional_table(self, name: str) -> pd.DataFrame:
        """A table of the folder; empty in one that was prepared before there was such a table."""
        if self.is_in_memory:
            return self.tables.get(name, empty_table(name))
        path = self.folder / f"{name}.parquet"
        table = read_table(path, name) if path.exists() else empty_table(name)
        if name not in ("images", "excluded"):
            require_members(table["image_id"], self.images, path)
        return table

    def identities(self, image_ids: pd.Index) -> pd.DataFrame:
        """What tells images and patients from others: ids and `FINGERPRINTS`, where known."""
        decode = self.optional_table("decode").set_index("image_id")
        patients = self.images.set_index("image_id")[["patient_id"]].reindex(image_ids)
        known = decode.reindex(index=image_ids, columns=list(FINGERPRINTS))
        return patients.join(known).rename_axis("image_id").reset_index()

    @property
    def synthetic(self) -> pd.Series:
        """Whether each image of the images table is one of ``cxr synth``, bool."""
        images = self.images
        # Sets prepared before ``source`` said so: the phantom's patients have names of their own.
        named = images["patient_id"].str.contains(SYNTHETIC_PATIENT)
        return images["source"].eq(SYNTHETIC) | named

    def target(self, name: str | None = None, *, option: str = "--target NAME") -> Target:
        """The named target; the name may be left out where there is exactly one."""
        known = ", ".join(self.targets)
        if name is None and len(self.targets) != 1:
            raise InputError(f"{self.folder}: has targets {known}; choose one with {option}")
        name = next(iter(self.targets)) if name is None else name
        if name not in self.targets:
            raise InputError(f"{self.folder}: has no target '{name}'; it has {known}")
        return self.targets[name]

    def require_labelled(self, learnt: Mapping[str, str], folder: Path) -> None:
        """Refuse a model of a folder that finds what is not labelled here: its names, by ours."""
        labelled = sorted(set(self.findings["finding"]))
        lacking = [name for name in learnt if name not in labelled]
        if not lacking:
            return
        shared = [own if own == name else f"{own}={name}" for name, own in learnt.items()
                  if name in labelled]  # fmt: skip
        if shared:
            advice = f"'cxr predict --finding {' --finding '.join(shared)}' leaves the others out"
        else:
            advice = (
                f"where one of these means the same, 'cxr predict --finding "
                f"{learnt[lacking[0]]}=NAME' predicts it under that name"
            )
        raise InputError(
            f"{folder}: predicts '{lacking[0]}', which {self.folder} does not label; it "
            + (f"has {', '.join(labelled)}; {advice}" if labelled else "has no labels")
        )

    def split(self, name: str = "default") -> pd.DataFrame:
        """The named split: ``image_id``, ``role``, ``fold``; `InputError` where it is not there."""
        if name in self.splits:
            return self.splits[name]
        path = self.folder / "splits" / f"{name}.parquet"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.parquet"))) or "none"
            raise InputError(f"{self.folder}: has no split '{name}'; it has {known}")
        table = read_table(path, "split")
        require_members(table["image_id"], self.images, path)
        return table

    def split_rule(self, name: str) -> dict[str, Any]:
        """How images got their roles in a split; empty where its record does not say it."""
        path = self.folder / "splits" / f"{name}.json"
        return dict(read_json(path, "split").get("how") or {}) if path.is_file() else {}

    def image_ids(self, role: str, split: str = "default") -> pd.Index:
        """Sorted ids of the images that have a role in a split."""
        table = self.split(split)
        return pd.Index(table.loc[table["role"] == role, "image_id"].sort_values(), name="image_id")

    def labels(self, target: Target) -> pd.Series:
        """Labels for a target by every ``image_id``: 1.0 positive, 0.0 negative, NaN unknown."""
        images, states = self.images, self.findings
        states = states[states["finding"].isin(target.any_of)]
        row = positions(states["image_id"], images["image_id"])

        def count(state: str) -> np.ndarray:
            chosen = (row >= 0) & (states["state"] == state).to_numpy()
            return np.bincount(row[chosen], minlength=len(images))

        values = np.full(len(images), np.nan)
        values[count("absent") == len(target.any_of)] = 0.0
        values[count("present") > 0] = 1.0
        return pd.Series(values, index=pd.Index(images["image_id"]), name="label")

    def boxes_trusted(self, target: Target) -> pd.Index:
        """Images where all lesions of the target are boxed, and images known to have none.

        Only on these may a detector learn and localisation be evaluated.
        """
        labels = self.labels(target)
        findings, coverage = self.findings, self.box_coverage
        present = findings[
            findings["finding"].isin(target.any_of) & (findings["state"] == "present")
        ]
        complete = coverage[coverage["coverage"] == "all"]
        keys = ["image_id", "finding"]
        merged = present[keys].merge(complete[keys], on=keys, how="left", indicator=True)
        lacking = merged.loc[merged["_merge"] == "left_only", "image_id"]
        known = labels.index[labels.notna()]
        return known[~is_member(known, lacking)]

    def target_boxes(self, target: Target) -> pd.DataFrame:
        """``image_id, finding, x1, y1, x2, y2``, original px, on the images of `boxes_trusted`."""
        boxes = self.boxes
        chosen = boxes["finding"].isin(target.any_of)
        chosen &= is_member(boxes["image_id"], self.boxes_trusted(target))
        return boxes.loc[chosen, list(BOX_COLUMNS[:-1])].reset_index(drop=True)

    @property
    def has_pixels(self) -> bool:
        """Whether every image has a file; a set without pixels can still be evaluated on."""
        return bool(self.images["path"].notna().all())

    @cached_property
    def image_files(self) -> pd.DataFrame:
        """``image_id, path, file_sha256``, the path as it is on the disk below `source_root`.

        `InputError` where paths are keyed hashes and the key is not at hand, or where one leads
        into a store that nobody here has named.
        """
        files = self.images[["image_id", "path", "file_sha256"]]
        paths = files["path"].dropna()
        for path in paths[paths.str.contains("cxr-remote", regex=False)]:
            path_from_record(str(self.source_root / path), self.folder)
        if "id_key" not in self.info:
            return files
        from cxr_compare.data_prep.contracts.pseudonyms import (
            KEY_VARIABLE,
            find_hidden,
            key_from_environment,
        )

        key = key_from_environment(self.info["id_key"], self.folder)
        found = find_hidden(self.source_root, key, files["path"].dropna())
        missing = files[~is_member(files["path"], list(found)) & files["path"].notna()]
        if len(missing):
            raise InputError(
                f"{self.folder}: the file of image '{missing['image_id'].iloc[0]}' is not below "
                f"{self.source_root} any more ({len(missing)} such images; {KEY_VARIABLE} names "
                "the right key)"
            )
        true = {h: p.relative_to(self.source_root).as_posix() for h, p in found.items()}
        return files.assign(path=files["path"].map(true).astype(TEXT))

    @cached_property
    def _files(self) -> pd.DataFrame:
        return self.image_files.set_index("image_id")

    @property
    def source_root(self) -> Path:
        """Where the images' paths start; `InputError` for a store that nobody here has named."""
        return path_from_record(self.info["source_root"], self.folder)

    @property
    def window(self) -> str | None:
        """Name of the DICOM window that its images are shown in; None for the first."""
        return self.info["settings"].get("window")

    def image_path(self, image_id: str) -> Path:
        """The source file of an image; `InputError` where it is unknown or has none."""
        path = self._files["path"].get(image_id)
        if path is None or pd.isna(path):
            raise InputError(f"{self.folder}: image '{image_id}' has no file in this data set")
        return self.source_root / str(path)

    def read_original(self, image_id: str) -> np.ndarray:
        """Decode an image at its original size, as it is displayed."""
        return read_displayed(*self.image_file(image_id))

    def image_file(self, image_id: str) -> tuple[Path, str | None, str]:
        """What `read_displayed` takes of an image: its file, the window, the file's SHA-256."""
        return self.image_path(image_id), self.window, str(self._files["file_sha256"][image_id])

    def store(self, size: int) -> PixelStore:
        """The pixel store at a size in pixels; `InputError` where it has not been built."""
        from cxr_compare.data_prep.store.pixel_store import PixelStore, store_folder

        return PixelStore.open(store_folder(self.folder, size))

    def make_store(self, size: int, terminal: Progress, engine: Engine | None = None) -> PixelStore:
        """Open the pixel store of a size; decode what it lacks.

        Where another training is decoding the same pixels, wait for it: one does the work.
        """
        from cxr_compare.data_prep.store.pixel_store import build_pixel_store

        title = f"Pixels at {size} px"
        with terminal.track(title, len(self.images)) as advance:
            return build_pixel_store(
                self.folder,
                self.image_files,
                self.source_root,
                size,
                window=self.window,
                engine=engine,
                progress=advance,
                before_wait=lambda: terminal.say(f"{title}: another cxr decodes them; waiting"),
            )
