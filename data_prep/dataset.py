"""A prepared data set: its tables, targets, splits and pixels."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import (
    InputError,
    Remedy,
    ShownAsText,
    counted,
    require_extra,
)
from cxr_compare.data_prep.base.files import folder_lock, require_unchanged
from cxr_compare.data_prep.base.folders import OpenedFromFolder, require_folder
from cxr_compare.data_prep.base.ids import are_rows_of, is_member, positions
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.provenance import MadeRecord, cpu_count
from cxr_compare.data_prep.base.records import Digests, Items, Record
from cxr_compare.data_prep.base.tables import (
    FINDING_KEY,
    FINGERPRINTS,
    REFERENCE_READER,
    ROLES,
    SYNTHETIC,
    SYNTHETIC_PATIENT,
    empty_table,
    frame_digest,
    read_table,
    require_members,
)
from cxr_compare.data_prep.base.user_tables import read_json_file
from cxr_compare.data_prep.classes import find_classes, reference_name
from cxr_compare.data_prep.splits import SplitInfo, SplitOrigin

if TYPE_CHECKING:
    from cxr_compare.data_prep.parallel import Progress
    from cxr_compare.data_prep.pixels import ImageFile, PixelStore

_DIGESTED = {
    "findings": ("image_id", "finding", "reader", "state"),
    "boxes": ("image_id", "finding", *EDGES, "reader"),
    "box_coverage": ("image_id", "finding", "reader", "coverage"),
}
_IMAGE_COLUMNS = ("image_id", "patient_id", "file_sha256", "height", "width")
AUDIT = "audit.json"
"""File of the audit for programs, in the folder of the data set."""
DATA_PAGE = "data.html"
"""The page for people, which shows the data set and its faults."""
_IMAGES_PER_WORKER = 200  # starting a process takes as long as decoding these
_FEW_PATIENTS = 10
_OFFERED = 4  # targets, in a message
_SHOWN, _NAMED = 10, 3  # reasons for which files were left out, and files of each, for people


class DataSetIds(Record):
    """Digests by which a program recognises that two data sets have the same images or labels."""

    content_id: str
    labels_id: str
    split_ids: dict[str, str] = Field(default_factory=dict)


class DataSetInfo(MadeRecord, kind="dataset"):
    """Content of ``dataset.json``, which marks a data set folder as complete."""

    name: str
    source_root: str
    targets: dict[str, Target]
    ids: DataSetIds
    request: str
    id_key: str | None = None
    notes: Items[str] = ()
    pictures: bool = True
    files: Digests = Field(default_factory=dict)


def image_labels(image_ids: pd.Series, findings: pd.DataFrame, any_of: Sequence[str]) -> pd.Series:
    """Return the label of each image: 1 if a finding is present, 0 if all are absent, else NaN."""
    states = findings.loc[is_member(findings["finding"], any_of), ["image_id", "state"]]
    row = positions(states["image_id"], image_ids)

    def count(state: str) -> np.ndarray:
        has_state = (row >= 0) & (states["state"] == state).to_numpy()
        return np.bincount(row[has_state], minlength=len(image_ids))

    values = np.full(len(image_ids), np.nan)
    values[count("absent") == len(any_of)] = 0.0
    values[count("present") > 0] = 1.0
    return pd.Series(values, index=pd.Index(image_ids), name="label")


def uncertain_images(
    image_ids: pd.Series, findings: pd.DataFrame, any_of: Sequence[str]
) -> pd.Index:
    """Return the ids of images of unknown label that have one if uncertain findings are absent."""
    is_uncertain = findings["state"] == "uncertain"
    if not is_uncertain.any():
        return pd.Index(image_ids)[:0]
    certain = findings["state"].mask(is_uncertain, "absent")
    labels = image_labels(image_ids, findings, any_of)
    without = image_labels(image_ids, findings.assign(state=certain), any_of)
    return labels.index[labels.isna() & without.notna()]


def boxed_images(
    labels: pd.Series, findings: pd.DataFrame, coverage: pd.DataFrame, any_of: Sequence[str]
) -> pd.Index:
    """Return the ids of images of known label of which every present finding is wholly boxed."""
    is_present = is_member(findings["finding"], any_of) & (findings["state"] == "present")
    present = findings.loc[is_present, FINDING_KEY]
    complete = coverage.loc[coverage["coverage"] == "all", FINDING_KEY]
    incomplete = present[~are_rows_of(present, complete)]
    labelled_ids = labels.dropna().index
    return labelled_ids[~is_member(labelled_ids, incomplete["image_id"])]


def digests(tables: Mapping[str, pd.DataFrame]) -> DataSetIds:
    """Return digests of images and of labels (findings, boxes and coverage)."""
    labels = [frame_digest(tables[name], columns) for name, columns in _DIGESTED.items()]
    return DataSetIds(
        content_id=frame_digest(tables["images"], _IMAGE_COLUMNS),
        labels_id=frame_digest(pd.DataFrame({"part": labels}), ["part"]),
    )


@dataclass(repr=False)
class DataSet(OpenedFromFolder, ShownAsText):
    """A prepared data set of chest X-rays: its tables, labels, boxes, splits and images.

    Attributes:
        folder: The folder.
        info: Content of ``dataset.json``.

    Examples:
        >>> from cxr_compare import DataSet
        >>> data = DataSet.open("sets/own")  # doctest: +SKIP
        >>> data.image_ids("test")  # doctest: +SKIP
    """

    folder: Path
    info: DataSetInfo

    @classmethod
    def open(cls, folder: str | Path) -> DataSet:
        """Open the folder of a data set that ``cxr prepare`` made."""
        folder = Path(folder)
        require_folder(folder, "data set")
        return cls(folder, DataSetInfo.read(folder / "dataset.json"))

    def table(self, name: str) -> pd.DataFrame:
        """Return a table with the rows of all readers; empty if the folder lacks it."""
        file = f"{name}.parquet"
        if file not in self.info.files:
            return empty_table(name)
        return read_table(self.folder / file, name, self.info.files)

    @cached_property
    def images(self) -> pd.DataFrame:
        """Images table, one row per image."""
        return self.table("images")

    @cached_property
    def findings(self) -> pd.DataFrame:
        """Findings of the reference reader."""
        return of_reference(self.table("findings"))

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """Boxes of the reference reader, px of the original image: one row a box and finding."""
        return of_reference(self.table("boxes"))

    @property
    def n_boxes(self) -> int:
        """Number of boxes."""
        return len(self.boxes)

    @cached_property
    def box_coverage(self) -> pd.DataFrame:
        """Images and findings of which the reference reader drew all or some boxes."""
        return of_reference(self.table("box_coverage"))

    @cached_property
    def decode(self) -> pd.DataFrame:
        """Facts about the decoding of each image file; empty where they were not recorded."""
        return self.table("decode")

    @cached_property
    def reading(self) -> pd.DataFrame:
        """Record of what was read: facts, such as the form of boxes, and lines that were shown."""
        return self.table("read")

    @cached_property
    def target_labels(self) -> pd.DataFrame:
        """Label of each image, with a column for each target: 1, 0, or NaN where it is unknown."""
        labels = {name: self.labels(target) for name, target in self.targets.items()}
        return pd.DataFrame(labels, index=pd.Index(self.images["image_id"]))

    @property
    def label_counts(self) -> pd.DataFrame:
        """Images of each target that are present, absent, unknown and uncertain, and its boxes."""
        ids, counts = self.images["image_id"], {}
        for name, target in self.targets.items():
            labels = self.target_labels[name]
            n_uncertain = len(uncertain_images(ids, self.findings, target.any_of))
            counts[name] = {
                "present": int((labels == 1).sum()),
                "absent": int((labels == 0).sum()),
                "unknown": int(labels.isna().sum()) - n_uncertain,
                "uncertain": n_uncertain,
                "boxes": int(is_member(self.boxes["finding"], target.any_of).sum()),
            }
        return pd.DataFrame.from_dict(counts, "index")

    @property
    def name(self) -> str:
        """Name of the data set, which is not that of its folder; empty if none was given."""
        return self.info.name

    @property
    def targets(self) -> dict[str, Target]:
        """Findings that together make an image positive, by the name under which they count."""
        return self.info.targets

    @property
    def has_class_folders(self) -> bool:
        """True if each image has its label from the folder of its class."""
        return len(self.findings) > 0 and bool((self.table("findings")["origin"] == "folder").all())

    @property
    def ids(self) -> DataSetIds:
        """Digests of images (``content_id``), labels (``labels_id``) and splits (``split_ids``)."""
        return self.info.ids

    @property
    def synthetic(self) -> pd.Series:
        """Flag for each row of the images table: True for an image that ``cxr synth`` drew."""
        # An export to another format loses ``source``; ids of the phantom's patients stay.
        has_phantom_id = self.images["patient_id"].str.contains(SYNTHETIC_PATIENT)
        return self.images["source"].eq(SYNTHETIC) | has_phantom_id

    def target(
        self,
        name: str | None = None,
        *,
        options: Callable[[str], Mapping[str, Any]] = lambda name: {"target": name},
        others: Sequence[str] = (),
    ) -> Target:
        """Return a target (findings that together make an image positive) by its name.

        `options` gives the options of the caller's command that choose a target, and `others` are
        further names that they take.
        """
        if name is None and len(self.targets) == 1:
            return next(iter(self.targets.values()))
        if name in self.targets:
            return self.targets[name]
        listed = ", ".join(self.targets)
        problem = f"has targets {listed}: which is meant?"
        if name is not None:
            problem = f"has no target '{name}'; it has {listed}"
        near = difflib.get_close_matches(name or "", self.targets, 1)
        offered = dict.fromkeys([*near, *others, *self.targets])
        ways = [Remedy(options=options(target_name)) for target_name in offered]
        raise InputError(f"{self.folder}: {problem}", ways[:_OFFERED])

    def classes(self, name: str | None = None, **options: Any) -> tuple[Target, tuple[str, ...]]:
        """Return findings that exclude each other, and the names of all classes for people.

        The first is the reference class, the images that show none. The findings are those of a
        target by its name, with options of `target`, or else all that are shown. InputError, which
        names an image, where they do not exclude each other.
        """
        target = Target.of("any_finding", [])
        if name:
            target = self.target(name, **options)
        ids = self.images["image_id"].sort_values()
        findings, rest = find_classes(self.findings, ids, target.any_of, str(self.folder))
        known = self.targets
        names = [known.get(n, Target.of(n, [n])).display_name for n in (rest, *findings)]
        names[0] = names[0] or reference_name(self.reading)
        return replace(target, any_of=findings), tuple(names)

    def split(self, name: str = "default") -> pd.DataFrame:
        """Return the table that assigns each image to train, validation or test."""
        path = self.folder / "splits" / f"{name}.parquet"
        if name not in self.info.ids.split_ids:
            names = ", ".join(self.split_names) or "none"
            raise InputError(f"{self.folder}: has no split '{name}'; it has {names}")
        table = read_table(path, "split", self.info.files, self.folder)
        require_members(table["image_id"], self.images, path)
        return table

    def split_origin(self, name: str) -> SplitOrigin:
        """Return how a split was made."""
        path = self.folder / "splits" / f"{name}.json"
        require_unchanged(path, self.info.files.get(f"splits/{name}.json"))
        return SplitInfo.read(path).how

    @property
    def split_names(self) -> list[str]:
        """Names of the splits in the folder."""
        return sorted(self.info.ids.split_ids)

    def image_ids(self, role: str, split: str = "default") -> pd.Index:
        """Return the sorted ids of the images of a part such as train, validation or test."""
        table = self.split(split)
        return pd.Index(table.loc[table["role"] == role, "image_id"].sort_values(), name="image_id")

    def labels(self, target: Target) -> pd.Series:
        """Return the label of each image for a target: 1, 0, or NaN where it is not known."""
        return image_labels(self.images["image_id"], self.findings, target.any_of)

    def boxes_trusted(self, target: Target) -> pd.Index:
        """Return the ids of the images on which every lesion of a target has a box."""
        return boxed_images(self.labels(target), self.findings, self.box_coverage, target.any_of)

    def target_boxes(self, target: Target) -> pd.DataFrame:
        """Return the boxes of a target, only of images on which every lesion has a box."""
        is_trusted = is_member(self.boxes["image_id"], self.boxes_trusted(target))
        boxes = self.boxes[is_trusted & self.boxes["finding"].isin(target.any_of)]
        return boxes[["image_id", "finding", *EDGES]].reset_index(drop=True)

    def learned_labels(self, target: Target, *, boxed: bool) -> pd.Series:
        """Return for each image from which a model can learn a target whether it shows it.

        A detector (`boxed`) learns from images with all lesions boxed or with none, a classifier
        from those with a known label of any of the findings.
        """
        if boxed:
            ids = self.boxes_trusted(target)
            return pd.Series(is_member(ids, self.target_boxes(target)["image_id"]), index=ids)
        is_known = self.findings["state"].isin(["present", "absent"])
        labels = self.findings[is_known & self.findings["finding"].isin(target.any_of)]
        return labels["state"].eq("present").groupby(labels["image_id"]).any()

    @property
    def has_pixels(self) -> bool:
        """True if every image of the data set has a file, so that models can be run on it."""
        return bool(self.images["path"].notna().all())

    @cached_property
    def _files(self) -> Any:
        return self.images.set_index("image_id")[["path", "file_sha256"]]

    def image_file(self, image_id: str) -> ImageFile:
        """Return the file of an image, with the checksum for reading it."""
        require_extra(f"{self.folder}: its images", "images", "cv2")
        from cxr_compare.data_prep.pixels import ImageFile  # evaluating needs no decoder

        self._require_paths()
        if image_id not in self._files.index or pd.isna(self._files.at[image_id, "path"]):
            raise InputError(f"{self.folder}: image '{image_id}' has no file in this data set")
        path, sha256 = self._files.loc[image_id]
        return ImageFile(Path(self.info.source_root, path), sha256)

    def _require_paths(self) -> None:
        if self.info.id_key is not None:
            raise InputError(
                f"{self.folder}: its paths are keyed hashes, so its image files cannot be found; "
                "prepare it with the size that is needed"
            )

    def read_original(self, image_id: str) -> np.ndarray:
        """Decode an image at its original size, as a viewer displays it."""
        return self.image_file(image_id).read()

    def store(self, size: int) -> PixelStore:
        """Open the pixel store: all images of the data set, resized to squares of one side."""
        from cxr_compare.data_prep.pixels import PixelStore, pixels_file

        return PixelStore.open(pixels_file(self.folder, size), self.info.files)

    @property
    def sizes(self) -> list[int]:
        """Sizes of the complete pixel stores, px, the smallest first."""
        names = (name.split("/") for name in self.info.files)
        return sorted(int(Path(name[1]).stem) for name in names if name[0] == "pixels")

    def make_store(self, size: int, progress: Progress, workers: int | None = None) -> PixelStore:
        """Open the pixel store of a size, and make it if it is not there."""
        require_extra(f"{self.folder}: its images", "images", "cv2")
        from cxr_compare.data_prep.pixels import add_size, size_journal

        record = self.folder / "dataset.json"
        self.info = DataSetInfo.read(record)  # another process may have added it
        if size not in self.sizes:
            self._require_paths()
            if workers is None:
                workers = min(cpu_count(), len(self.images) // _IMAGES_PER_WORKER)
            title = f"Pixels at {size} px"
            with folder_lock(self.folder), progress.track(title, len(self.images)) as advance:
                root = Path(self.info.source_root)
                digests = add_size(self.folder, self.images, root, size, workers, advance)
                info = DataSetInfo.read(record)
                self.info = info.with_values(files={**info.files, **digests})
                self.info.write(record)
        journal = size_journal(self.folder, size)
        if journal.exists():  # the folder may be read-only
            journal.unlink()
        return self.store(size)

    def identities(self, image_ids: pd.Index) -> pd.DataFrame:
        """Return ids and digests by which images and patients are recognised in other sets."""
        identities = self.images[["image_id", "patient_id"]].merge(
            self.decode[["image_id", *FINGERPRINTS]], on="image_id", how="left"
        )
        return (
            identities.set_index("image_id")
            .reindex(image_ids)
            .rename_axis("image_id")
            .reset_index()
        )

    def require_labelled(self, findings: Iterable[str], folder: Path) -> None:
        """Refuse a data set without labels of a finding that the model in a folder predicts."""
        labelled = sorted(set(self.findings["finding"]))
        lacking = [name for name in findings if name not in labelled]
        if lacking:
            raise InputError(
                f"{folder}: predicts '{lacking[0]}', which {self.folder} does not label; it has "
                f"{', '.join(labelled) or 'no labels'}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``dataset.json``."""
        return self.info.to_json()

    @property
    def patients_text(self) -> str:
        """Number of patients in words; images of unknown patients are counted apart."""
        patients = known_patients(self.images)
        known, n_unknown = counted(patients.nunique(), "patient"), int(patients.isna().sum())
        if n_unknown == len(patients):
            return "unknown patients"
        return f"{known} and {n_unknown:,} of unknown patients" if n_unknown else known

    def __str__(self) -> str:
        images = counted(len(self.images), "image")
        lines = [f"{images} of {self.patients_text}, {counted(self.n_boxes, 'box')}"]
        counts = self.label_counts
        if self._exclusive:  # what an image shows says what it does not
            lines.append(f"Each image has exactly one class of {', '.join(self._exclusive)}")
            counts = counts[["present", "boxes"]]
        lines += table_lines(counts)
        for name in ("default", "official"):
            if name in self.ids.split_ids:
                of_roles = _counts_by_role(self.images, self.split(name))
                lines += table_lines(of_roles.T, f"split '{name}'")
        excluded = self.table("excluded")
        if len(excluded):
            listed = self.folder / "excluded.parquet"
            lines.append(f"left out: {len(excluded):,} (all in {listed})")
        for reason, paths in list(excluded.groupby("reason", sort=False)["path"])[:_SHOWN]:
            more = f", ... ({len(paths):,})" if len(paths) > _NAMED else ""
            lines.append(f"  {', '.join(paths[:_NAMED])}{more}: {reason}")
        lines += self.info.notes
        lines += self._limits()
        for name in self.split_names:
            lines += [f"split '{name}': {note}" for note in self.split_origin(name).notes]
        if (self.folder / DATA_PAGE).is_file():
            lines.append(f"Page: {self.folder / DATA_PAGE}")
        return "\n".join([*lines, *(self._next() if self.has_pixels else ())])

    def _next(self) -> list[str]:
        """Return the command that trains on the target with most boxes, or most positive images.

        It is of a target that can be learned; without one there is no line. Without boxes it is of
        all findings where they exclude each other. After an error of the audit it is the command
        that says what to do.
        """
        if "default" not in self.ids.split_ids:
            return []
        audited = self.folder / AUDIT
        problems = read_json_file(audited)["problems"] if audited.is_file() else ()
        if any(p["severity"] == "error" and p["split"] in ("", "default") for p in problems):
            return [f"Next: {shlex.join(['cxr', 'check', str(self.folder)])}"]  # none trains
        parts = [self.image_ids(role) for role in ("train", "val")]

        def has_both(shows: pd.Series) -> bool:
            return all(shows[is_member(shows.index, part)].nunique() == 2 for part in parts)

        def call(config: str, *keys: str) -> str:
            words = ["cxr", "train", config, "--data", str(self.folder), "--out", "RUN", *keys]
            return shlex.join(words)

        for config, boxed in (("retinanet_small", True), ("chexnet_small", False)):
            most: dict[str, int] = {}
            for name, target in self.targets.items():
                shows = self.learned_labels(target, boxed=boxed)
                if has_both(shows):
                    most[name] = len(self.target_boxes(target)) if boxed else int(shows.sum())
            if most:
                name = max(most, key=most.__getitem__)
                chosen = ["--set", f"data.target={name}"] if len(self.targets) > 1 else []
                if self._exclusive and not boxed:
                    chosen = ["--set", "training.loss=softmax"]
                return [f"Next: {call(config, *chosen)}"]
        return []

    @cached_property
    def _exclusive(self) -> tuple[str, ...]:
        """Names of three or more classes with a folder each; else empty."""
        names: tuple[str, ...] = ()
        with suppress(InputError):  # findings that may occur together
            names = self.classes()[1] if self.has_class_folders else ()
        return names if len(names) > 2 else ()

    def _limits(self) -> list[str]:
        """Note what cannot be learned or evaluated, as far as the labels show it."""
        if self.findings.empty:
            return []
        notes = []
        if self.boxes.empty and self.images["path"].notna().any():
            notes.append(
                "This data set has no boxes, from which a detector learns. Train a classifier (cxr "
                "train chexnet_small), or add boxes (boxes.csv)"
            )
        few = []
        for name, target in self.targets.items():
            labels = self.labels(target).to_numpy()
            for kind, value in (("positive", 1.0), ("negative", 0.0)):
                n_patients = self.images.loc[labels == value, "patient_id"].nunique()
                if n_patients < _FEW_PATIENTS:
                    few.append(f"{n_patients} {kind} for {name}")
        if few:
            more = f" and {len(few) - 6} more" if len(few) > 6 else ""
            notes.append(
                f"WARNING: There are few patients: {', '.join(few[:6])}{more}. Training, "
                "validation and test need one each, and figures of so few patients mean little; "
                "add images"
            )
        return notes

    def __repr__(self) -> str:
        images = counted(len(self.images), "image")
        return f"<DataSet '{self.name}': {images}, {self.folder}>"


def of_reference(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the reference reader."""
    return table[table["reader"] == REFERENCE_READER].reset_index(drop=True)


def known_patients(images: pd.DataFrame) -> pd.Series:
    """Return the patient of each image, missing where it is unknown and counts as one alone."""
    return images["patient_id"].where(images["patient_id_source"] != "assumed_image")


def count_roles(dataset: DataSet, split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count images, patients and positive images in each role (train, val, test, unused)."""
    counts = _counts_by_role(dataset.images, split)
    roles = split.set_index("image_id")["role"]
    for name, target in dataset.targets.items():
        labels = dataset.labels(target)
        positive = roles.reindex(labels.index[labels == 1]).value_counts()
        counts[f"positive for {name}"] = positive.reindex(counts.index, fill_value=0)
    rows = counts.astype(int).T.to_dict()
    return {
        str(role): {str(counted_kind): n for counted_kind, n in row.items()}
        for role, row in rows.items()
    }


def _counts_by_role(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of images, and of known patients, of each role that a split gives."""
    rows = images[["image_id"]].assign(patient=known_patients(images)).merge(split, on="image_id")
    counts = rows.groupby("role").agg(images=("image_id", "size"), patients=("patient", "nunique"))
    counts = counts if rows["patient"].notna().any() else counts[["images"]]
    return counts.reindex([r for r in ROLES if r in counts.index]).rename_axis(None)


def table_lines(counts: pd.DataFrame, title: str = "") -> list[str]:
    """Return a table of numbers as lines of text for display, with two spaces before each."""
    if counts.empty:
        return []
    text = counts.map("{:,}".format).rename_axis(columns=title).to_string()
    return [f"  {line}" for line in text.splitlines()]
