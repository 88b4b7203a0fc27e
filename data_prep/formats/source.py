"""The class of a format, the tables of a source before pixels are decoded, and their builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_values import BoxReading, ask_about_boxes, box_faults
from cxr_compare.data_prep.contracts.boxes import EDGES, upright_boxes
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, read_table_file
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.exclusions import Exclusions
from cxr_compare.data_prep.formats.folder_scan import require_unique_ids
from cxr_compare.data_prep.formats.image_size import SIDEWAYS, stored_size
from cxr_compare.data_prep.formats.implied_negatives import ImpliedNegatives
from cxr_compare.data_prep.formats.joined_spellings import (
    join_coverage,
    join_labels,
    rename_findings,
    spellings_of_targets,
)
from cxr_compare.data_prep.formats.targets import (
    target_from_findings,
    targets_from_findings,
    without_spellings,
)

FINDING_KEY = ["image_id", "finding"]
_ROLE_TABLES = ("split", "official")
NO_PIXELS = "the source holds no image file, so predictions can only be evaluated on this data set"


def empty_roles() -> pd.DataFrame:
    """Return an empty table of images and their roles (train, val, test or unused).

    Returns:
        Table without rows and with the text columns ``image_id`` and ``role``.

    Example:
        >>> empty_roles().columns.tolist()
        ['image_id', 'role']
    """
    return pd.DataFrame({"image_id": [], "role": []}, dtype=TEXT)


@dataclass(frozen=True)
class ReadOptions:
    r"""Options of the user for reading images and labels. Each format uses some of them.

    Attributes:
        reference: Rule by which labels of several readers (people) of one image become those of the
            reader ``reference``, which are used: ``majority``, ``any``, ``all`` or ``reader:NAME``.
        labels: Paths of label tables outside the folder.
        sheet: Name of the sheet to read in each spreadsheet; None takes the only sheet.
        columns: What columns of label tables contain, as texts CONTENT=COLUMN, such as
            ``patient=Subject``, and paths of TOML files that describe whole tables.
        class_names: Names of the classes in the order of their numbers, if the label files contain
            only numbers.
        raw_boxes: True if boxes are of the stored pixels of image files, before their EXIF
            orientation turns them. They are then turned with the images.
        patient_pattern: Regular expression that finds the patient in the name of an image file. Its
            first group is the patient number. The name of the group, if it has one, becomes the
            prefix of the patient id: ``(?P<nih>\d{8})_`` turns ``00019124_092.png`` into
            ``nih:00019124``. None if names contain no patient.

    Example:
        >>> ReadOptions(columns=("file=Image Index",)).reference
        'majority'
    """

    reference: str = "majority"
    labels: tuple[Path, ...] = ()
    sheet: str | None = None
    columns: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    raw_boxes: bool = False
    patient_pattern: str | None = None


@dataclass(frozen=True)
class SourceTables:
    """Tables of one data set as its publisher or owner provides it, before pixels are decoded.

    Attributes:
        format: Name of the format, as in ``--format``.
        root: Folder to which the paths of the images are relative.
        images: Columns ``image_id, patient_id, patient_id_source, source, path`` and all others of
            the images table that are known. ``path`` is missing for an image without a file.
            ``field_width_mm`` and ``field_height_mm`` are the true size of what the image shows;
            they become the pixel spacing when the size of the image is known.
        findings: State (present, absent, uncertain) of each finding, by image and reader (person
            who labelled).
        targets: By name: findings that together make an image positive, each as ``{"any_of": [...],
            "display_name": ...}``.
        boxes: Boxes of lesions in px of the original image, which are not yet checked against its
            size.
        box_coverage: Table that says whether all or only some lesions of an image have a box, by
            finding and reader.
        excluded: Columns ``path, stage, reason`` of files and images that are left out because of
            their labels.
        split: Columns ``image_id, role`` of images whose role (train, val, test or unused) is
            fixed; the roles of the other images are drawn at random.
        official: Columns ``image_id, role`` of the publisher's own assignment to train, validation
            and test, which is stored as the split ``official`` beside the drawn one.
        notes: Facts about the data that a user must know, one sentence each.
        patient_notes: Those of `notes` that warn of images of unknown patients.
        read_as: Sentences on how the label tables were read, such as the role of each column.
        implied: Labels among `findings` that are absent because the files do not name the finding;
            None if the format implies none.
    """

    format: str
    root: Path
    images: pd.DataFrame
    findings: pd.DataFrame
    targets: dict[str, dict[str, Any]]
    boxes: pd.DataFrame = field(default_factory=lambda: empty_table("boxes"))
    box_coverage: pd.DataFrame = field(default_factory=lambda: empty_table("box_coverage"))
    excluded: pd.DataFrame = field(default_factory=lambda: empty_table("excluded"))
    split: pd.DataFrame = field(default_factory=empty_roles)
    official: pd.DataFrame = field(default_factory=empty_roles)
    notes: tuple[str, ...] = ()
    patient_notes: tuple[str, ...] = ()
    read_as: tuple[str, ...] = ()
    implied: ImpliedNegatives | None = None

    def with_targets(self, targets: Mapping[str, Sequence[str]]) -> SourceTables:
        """Return a copy with targets that the user defined, which replace those of the same name.

        A target that is named after one of its findings says that the others are spellings of that
        finding: their labels and boxes become those of the one finding. An image is then present if
        it is present under any spelling.

        Args:
            targets: By name of a target, the findings of which any makes an image positive.

        Returns:
            The same tables with the added targets.

        Raises:
            InputError: A target names a finding that the data set does not have, or names no
                finding.
        """
        findings = set(self.findings["finding"])
        for target in self.targets.values():
            findings.update(target["any_of"])
        added = {}
        for name, members in targets.items():
            unknown = [member for member in members if member not in findings]
            if unknown or not members:
                raise InputError(
                    f"--target {name}: finding '{', '.join(unknown)}' is not in the source; it has "
                    f"{', '.join(sorted(findings)) or 'none'}"
                )
            added[name] = target_from_findings(name, members)
        return replace(self, targets={**self.targets, **added}).with_joined_spellings(targets)

    def with_joined_spellings(self, defined: Mapping[str, Sequence[str]]) -> SourceTables:
        """Return a copy in which the spellings that the user's targets join are one finding.

        Args:
            defined: Findings of each target that the user defined, by its name. The tables have
                these targets already.

        Returns:
            The same tables with the labels, boxes and targets of the one finding.
        """
        joined = spellings_of_targets(defined)
        if not joined:
            return self
        implied = self.implied
        if implied is not None:
            implied = implied.with_joined_spellings(self.findings, joined)
        return replace(
            self,
            targets=without_spellings(self.targets, joined),
            implied=implied,
            findings=join_labels(self.findings, joined),
            boxes=rename_findings(self.boxes, joined),
            box_coverage=join_coverage(self.box_coverage, joined),
        )

    def label_notes(self, rule: str) -> list[str]:
        """Return sentences on the labels, which are exact once the tables are complete.

        They say how often the people who labelled disagree, which labels are undecided, and how
        many are negative because the files do not name the finding.

        Args:
            rule: Rule by which the labels of several people were joined: ``majority``, ``any``,
                ``all`` or ``reader:NAME``.
        """
        implied = self.implied.note(self.findings) if self.implied else None
        return [*self._reader_notes(rule), *([implied] if implied else [])]

    def _reader_notes(self, rule: str) -> list[str]:
        """Return sentences on labels on which the people who labelled disagree or are undecided."""
        is_reference = self.findings["reader"] == REFERENCE_READER
        readers = self.findings[~is_reference]
        reference = self.findings[is_reference].merge(readers[FINDING_KEY].drop_duplicates())
        n_states = readers.groupby(FINDING_KEY)["state"].nunique()
        n_differ = int((n_states > 1).sum())
        n_uncertain = int((reference["state"] == "uncertain").sum())
        n_unread = readers["image_id"].nunique() - reference["image_id"].nunique()
        chosen_reader = rule.partition("reader:")[2]
        notes = []
        if n_unread and chosen_reader:
            notes.append(
                f"{counted(n_unread, 'image', 'were')} not read by {chosen_reader} and have no "
                "reference label"
            )
        elif n_differ:
            note = (
                f"{counted(readers['reader'].nunique(), 'reader')} labelled the images and differ "
                f"on {n_differ:,} of {len(n_states):,} labels; the labels of all readers are "
                f"stored, and the reference follows --reference {rule}"
            )
            if n_uncertain:
                note += (
                    f", which leaves {n_uncertain:,} labels uncertain: they are neither learned "
                    "nor evaluated. Another rule (any, all, reader:NAME) decides more of them"
                )
            notes.append(note)
        is_boxed_finding = is_member(reference["finding"], self.boxes["finding"])
        present = reference[is_boxed_finding & (reference["state"] == "present").to_numpy()]
        drawn = self.boxes.loc[self.boxes["reader"] == REFERENCE_READER, FINDING_KEY]
        n_without_box = len(present) - len(present.merge(drawn.drop_duplicates()))
        if n_without_box:
            notes.append(
                f"{n_without_box} of {len(present)} present findings of the reference have no box: "
                "the readers agree that the finding is present, but not where it is; localisation "
                "is not evaluated on them"
            )
        return notes


class WrongFormatError(InputError):
    """Error that is raised if a folder does not have the format that the user named."""


@dataclass(frozen=True)
class Format:
    """A format of images and labels that ``cxr prepare`` reads, such as COCO.

    Help, documents and the recognition of formats are made from these objects.

    Attributes:
        name: Name as in ``--format``, such as ``coco``.
        title: Name of the format in documents.
        folder: One sentence that says what the user's folder must contain.
        detect: Function that returns True if a folder looks like this format. It reads names and
            first lines only.
        read: Function that returns the tables of the data set. It gets a new `SourceBuilder`, which
            knows the folder and the user's options, and decodes no pixel.
        options: Names of the fields of `ReadOptions` that the format uses.
        sources: Web addresses at which data sets of this format are published.
        is_deep: True if the format reads files in deeper folders than `detect` looks into.
        make_label_tables: Function that turns files of the format into label tables, by path of the
            file; the default returns no tables.
    """

    name: str
    title: str
    folder: str
    detect: Callable[[Path], bool]
    read: Callable[[SourceBuilder], SourceTables]
    options: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    is_deep: bool = False
    make_label_tables: Callable[[SourceBuilder], dict[Path, pd.DataFrame]] = lambda builder: {}

    def read_source(
        self, source: Path, options: ReadOptions, show: Callable[[str], None]
    ) -> SourceTables:
        """Read the tables of a user's folder or, if the format allows it, of one file.

        Args:
            source: The folder or file.
            options: Options that the user gave.
            show: Function that is called with each line that the user should see at once.

        Returns:
            The tables of the data set. No pixel is decoded.

        Raises:
            InputError: The folder cannot be read in this format, or its labels contradict each
                other.
        """
        builder = SourceBuilder(self, source, options, show)
        try:
            if not self.is_deep:
                builder.require_format()
            return self.read(builder)
        except UnicodeEncodeError as error:  # tables hold UTF-8, file systems hold bytes
            name = error.object.encode(errors="replace").decode()
            raise InputError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None


@dataclass
class SourceBuilder:
    """Helper with which the reader of a format builds the tables of a data set.

    It collects notes and excluded images, and has the steps that all formats share.

    Attributes:
        format: Format in which the folder is read, such as that of COCO.
        root: User's folder of images and labels.
        options: Options that the user gave.
        show: Function that is called with each line that the user sees at once.
        notes: Notes for the user that were collected so far.
        patient_notes: Those of `notes` that warn of images of unknown patients.
        read_as: Sentences on how the label tables were read.
        exclusions: Images that are left out, with their reasons.
        implied: Labels that are absent because the files do not name the finding; None without.
    """

    format: Format
    root: Path
    options: ReadOptions
    show: Callable[[str], None] = lambda line: None
    notes: list[str] = field(default_factory=list)
    patient_notes: list[str] = field(default_factory=list)
    read_as: list[str] = field(default_factory=list)
    exclusions: Exclusions = field(default_factory=Exclusions)
    implied: ImpliedNegatives | None = None
    _stored_sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def label_tables(self) -> dict[Path, pd.DataFrame]:
        """Return all label tables by path, with cells as text.

        They are those that the format makes of its files, and those that the user named.

        Raises:
            InputError: A file cannot be read as a table, or the user names a sheet although no
                table is a spreadsheet.
        """
        tables = dict(self.format.make_label_tables(self))
        sheet = self.options.sheet
        for path in self.options.labels:
            if path in tables:
                continue
            table = read_table_file(path, sheet if is_spreadsheet(path) else None)
            tables[path] = table.text
            for note in table.notes:
                self.show(f"{path.name}: {note}")
                self.read_as.append(f"{path.name}: {note}")
        if sheet is not None and not any(map(is_spreadsheet, tables)):
            raise InputError(f"--sheet {sheet}: none of the tables is a spreadsheet; leave it out")
        return tables

    def require_format(self) -> None:
        """Check that the user's folder looks like the format in which it is to be read.

        Raises:
            WrongFormatError: Neither the folder nor one near it has this format.
            InputError: The folder has another format, but a folder beside or below it has this
                format. The message names that folder.
        """
        if self.format.detect(self.root):
            return
        below = sorted(path for path in self.root.iterdir() if path.is_dir())
        for folder in (self.root.parent, *below[:50]):
            if self.format.detect(folder):
                raise InputError(
                    f"{self.root}: not in {self.format.name} format, but {folder} is; give that "
                    "folder"
                )
        raise WrongFormatError(f"{self.root}: not in {self.format.name} format")

    def patients(
        self,
        stated: pd.Series,
        fallback: pd.Series,
        warning: Callable[[int], str] | None = None,
        remedy: str = "",
    ) -> pd.DataFrame:
        """Give every image a patient id, and record how the patient is known.

        Args:
            stated: Patient id of each image; missing if the labels name no patient.
            fallback: Patient id for an image without a patient, unique to the image.
            warning: Function that gets the number of images without a patient, and returns the
                beginning of a warning; None gives no warning.
            remedy: Sentence that ends the warning.

        Returns:
            A table with columns ``patient_id`` and ``patient_id_source`` (how the patient is
            known), one row for each image.
        """
        is_known = stated.notna()
        n_unknown = int((~is_known).sum())
        if n_unknown and warning is not None:
            self.warn_of_unknown_patients(warning(n_unknown), remedy)
        origin = is_known.map({True: "given", False: "assumed_image"}).astype(TEXT)
        patient_id = stated.where(is_known, fallback)
        return pd.DataFrame({"patient_id": patient_id, "patient_id_source": origin})

    def warn_of_unknown_patients(self, begin: str, remedy: str = "") -> None:
        """Add a note for the user that each image of an unknown patient counts as one patient.

        Args:
            begin: Beginning of the note, which names the images.
            remedy: Sentence that ends the note.
        """
        warning = (
            f"WARNING: {begin} counts as a patient of its own. The same person may then be in "
            "training and test, which makes the figures too good"
        )
        note = f"{warning}. {remedy}" if remedy else warning
        self.notes.append(note)
        self.patient_notes.append(note)

    def drop_repeats(self, rows: pd.DataFrame, file: str) -> pd.DataFrame:
        """Remove repeated rows of a file, and add a note on their number.

        Args:
            rows: Rows of the file, as a table.
            file: Name of the file, for the note.

        Returns:
            The table with the first of each set of equal rows.
        """
        unique = rows.drop_duplicates()
        if len(unique) < len(rows):
            self.notes.append(f"{file}: {len(rows) - len(unique)} repeated rows were dropped")
        return unique

    def usable_files(self, files: pd.DataFrame, published: pd.Series, empty: str) -> pd.DataFrame:
        """Return the image files that are not left out, each with its image id.

        Args:
            files: Table with columns ``path``, ``name`` and ``inside`` (path inside the data set),
                one row for each file.
            published: For each file, True if ``name`` is the published name of an image, which then
                becomes the id. Otherwise the path inside the data set becomes the id.
            empty: Message of the error if no file is left.

        Returns:
            The rows of the remaining files, with ``image_id``.

        Raises:
            InputError: No file is left.
        """
        bare = files["inside"].str.replace(r"\.\w+$", "", regex=True)
        image_id = files["name"].where(published, bare)
        files = self.exclusions.keep(files.assign(image_id=image_id), "path")
        if files.empty:
            raise InputError(empty)
        require_unique_ids(files, self.root)
        return files.reset_index(drop=True)

    def match_files(
        self, rows: pd.DataFrame, files: pd.DataFrame, key: str, table: str, advice: str = ""
    ) -> bool:
        """Match rows of a label table with image files, and leave out what has no match.

        Args:
            rows: Rows of the label table, with ``image_id``.
            files: Table of the image files.
            key: Name of the column by which rows and files are matched, which both tables have.
            table: File name of the label table, for messages.
            advice: End of the error message if the label table lists no file.

        Returns:
            True if `files` has any row, that is, if the folder has image files. Else nothing is
            left out.

        Raises:
            InputError: The label table lists none of the files.
        """
        if files.empty:
            return False
        has_file = is_member(rows[key], files[key])
        if not has_file.any():
            raise InputError(
                f"{self.root}: none of its {len(files)} images is listed in {table}{advice}"
            )
        self.exclusions.add(rows.loc[~has_file, "image_id"], f"row in {table}, but no image")
        unlisted = ~is_member(files[key], rows[key])
        self.exclusions.add(files.loc[unlisted, key], f"no row in {table}")
        return True

    def stored_size(self, path: str) -> tuple[int, int, int]:
        """Return width and height (px) of an image as stored, and its EXIF orientation, 1 to 8.

        Args:
            path: Path of the image in the user's folder.

        Raises:
            InputError: The file is no image, is damaged, or is larger than the limit.
        """
        if path not in self._stored_sizes:
            self._stored_sizes[path] = stored_size(self.root / path)
        return self._stored_sizes[path]

    def labelled_size(self, path: str) -> tuple[int, int]:
        """Return width and height (px) of the pixels that the boxes of an image are of.

        They are those of the upright image or, with the option ``raw_boxes``, of the stored one.

        Args:
            path: Path of the image in the user's folder.

        Raises:
            InputError: The file is no image, is damaged, or is larger than the limit.
        """
        width, height, turn = self.stored_size(path)
        is_sideways = turn in SIDEWAYS and not self.options.raw_boxes
        return (height, width) if is_sideways else (width, height)

    def exclude_invalid_boxes(
        self,
        boxes: pd.DataFrame,
        hint: str = "",
        *,
        images: pd.DataFrame | None = None,
        reading: BoxReading | None = None,
        unread: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Leave out the images that have a box that cannot be used, such as one without area.

        A wrong box is a wrong label, so the findings of the image are unknown, not absent. A box
        that leaves its image by at most 1 % of a side or 3 px can be used; it is cut later.

        Args:
            boxes: Table with columns ``image_id, x1, y1, x2, y2`` (px of the original image).
            hint: Words at the end of the reason for a box without area.
            images: Table with ``image_id``, ``path`` and, if labels state them, ``width`` and
                ``height``; None if the sizes of images are not known.
            reading: Format in which the boxes were read; None for corners.
            unread: Image and reason of each box whose edges could not be read. These images are
                left out already.

        Raises:
            InputError: A tenth or more of the boxes cannot be used, or they seem to be in another
                unit or format.
        """
        ids = boxes["image_id"].to_numpy()
        edges = boxes[EDGES].to_numpy(dtype="float64")  # (N, 4) xyxy, original px
        sizes, misfits = self._box_sizes(images, ids)
        faults = box_faults(edges, sizes)
        faults = np.where(faults == "", misfits, faults)
        reading = reading or BoxReading()
        place = reading.where or str(self.root)
        rows = boxes[["image_id", *EDGES]].assign(place="")
        caution = ask_about_boxes(rows, faults, place, sizes, reading, list(unread))
        if caution:
            self.notes.append(f"WARNING: {caution}")
        edges = np.where(np.isfinite(edges), edges, np.nan)
        for reason in dict.fromkeys(faults[faults != ""]):
            is_so = faults == reason
            end = hint if "zero" in reason else ""
            self.exclusions.add(ids[is_so], f"{reason}{end}", edges[is_so])

    def _box_sizes(
        self, images: pd.DataFrame | None, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the size of the image of each box, and why it is not the stated one.

        Sizes are read from the files, else taken from the labels. They have the shape ``(N, 2)``,
        NaN where unknown; the reasons, empty texts in most cases, have the shape ``(N,)``.
        """
        sizes = np.full((len(ids), 2), np.nan)
        reasons = np.full(len(ids), "", dtype=object)
        if images is None:
            return sizes, reasons
        sides = images.reindex(columns=["width", "height"]).astype("float64").to_numpy()
        paths = images["path"] if "path" in images else pd.Series(None, index=images.index)
        stated = dict(zip(images["image_id"], zip(paths, sides, strict=True), strict=True))
        measured = {
            image: self._sizes_of_image(*stated[image]) for image in set(ids) & stated.keys()
        }
        for row, image in enumerate(ids):
            if image in measured:
                sizes[row], reasons[row] = measured[image]
        return sizes, reasons

    def _sizes_of_image(self, path: Any, stated: np.ndarray) -> tuple[np.ndarray, str]:
        """Return the size of an image in px, and why it is not the stated one, else ""."""
        if not isinstance(path, str) or self.root.is_file():
            return stated, ""
        try:
            size = self.labelled_size(path)
        except InputError:  # found again, and listed, when the image is decoded
            return stated, ""
        for name, side, actual in zip(("width", "height"), stated, size, strict=True):
            if not np.isnan(side) and side != actual:
                return np.array(
                    size
                ), f"not of the stated size: {name} {side:g}, the image has {actual} px"
        return np.array(size), ""

    def upright(
        self, images: pd.DataFrame, boxes: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Turn boxes and stated sizes as EXIF turns the images, with the option ``raw_boxes``.

        Args:
            images: Table with ``image_id``, ``path`` and, if labels state them, ``width`` and
                ``height`` of the stored pixels.
            boxes: Table with columns ``image_id, x1, y1, x2, y2`` (px of the stored pixels).

        Returns:
            The two tables; without the option they are unchanged.
        """
        if not self.options.raw_boxes:
            return images, boxes
        edges = boxes[EDGES].to_numpy(dtype="float64").copy()
        sides = images.reindex(columns=["width", "height"]).to_numpy(dtype="float64").copy()
        rows_of_image = boxes.groupby("image_id").indices
        for row, (image, path) in enumerate(zip(images["image_id"], images["path"], strict=True)):
            try:
                width, height, turn = self.stored_size(path)
            except InputError:  # found again, and listed, when the image is decoded
                continue
            if turn in SIDEWAYS:
                sides[row] = sides[row, ::-1].copy()
            rows = rows_of_image.get(image)
            if turn > 1 and rows is not None:
                edges[rows] = upright_boxes(edges[rows], (width, height), turn)
        if {"width", "height"} <= set(images.columns):
            images = images.assign(width=sides[:, 0], height=sides[:, 1])
        return images, boxes.assign(**dict(zip(EDGES, edges.T, strict=True)))

    def build(
        self,
        images: pd.DataFrame,
        findings: pd.DataFrame,
        targets: dict[str, dict[str, Any]] | None = None,
        *,
        files: pd.DataFrame | None = None,
        **tables: pd.DataFrame | None,
    ) -> SourceTables:
        """Build the tables of the data set, without the images that are left out.

        Args:
            images: Table of the images. Those that `exclusions` names are removed.
            findings: Table of their labels, with columns ``image_id, finding, reader`` (person who
                labelled), ``state`` (present, absent or uncertain) and ``origin`` (kind of label).
            targets: By name: findings that together make an image positive, as ``dataset.json``
                stores them. None makes a target of each finding.
            files: Table with columns ``image_id, path`` of all images that may be left out, from
                which the table ``excluded`` takes the paths; None lists images there by their ids.
            **tables: Further tables of `SourceTables` by field name, such as ``boxes``. Images that
                are left out are removed from ``split`` and ``official``.

        Returns:
            All tables of the data set, with the notes that were collected.
        """
        paths = {} if files is None else dict(zip(files["image_id"], files["path"], strict=True))
        excluded = self.exclusions.table(paths)
        earlier = tables.pop("excluded", None)
        if earlier is not None:
            excluded = pd.concat([earlier, excluded], ignore_index=True)
        further = {name: table for name, table in tables.items() if table is not None}
        for name in _ROLE_TABLES:
            if name in further:
                further[name] = self.exclusions.keep(further[name])
        if targets is None:
            targets = targets_from_findings(sorted(set(findings["finding"])))
        return SourceTables(
            format=self.format.name,
            root=self.root,
            images=images,
            findings=findings,
            targets=targets,
            excluded=excluded.reset_index(drop=True),
            notes=tuple(self.notes),
            patient_notes=tuple(self.patient_notes),
            read_as=tuple(self.read_as),
            implied=self.implied,
            **further,
        )


def reference_rows(image_ids: Any, finding: Any, **columns: Any) -> pd.DataFrame:
    """Build rows of a findings or boxes table for the reader ``reference``.

    Training and evaluation use the labels of this reader.

    Args:
        image_ids: Ids of N images.
        finding: Name of the finding (disease) of all rows, or a name for each row.
        **columns: Further columns by name, such as ``state``, each with one value for all rows or
            one for each row.

    Returns:
        Table with columns ``image_id``, ``finding``, ``reader`` and the further ones, numbered from
        0.

    Example:
        >>> reference_rows(["a", "b"], "mass", state="present")["state"].tolist()
        ['present', 'present']
    """
    rows = {"image_id": image_ids, "finding": finding, "reader": REFERENCE_READER, **columns}
    return pd.DataFrame(rows).reset_index(drop=True)


def boxes_from_sizes(
    image_ids: Any, finding: Any, x: pd.Series, y: pd.Series, width: pd.Series, height: pd.Series
) -> pd.DataFrame:
    """Build boxes of the reader ``reference`` from their corners and sizes.

    All lengths are in px of the original image. Training and evaluation use the labels of the
    reader ``reference``.

    Args:
        image_ids: Image id of each box.
        finding: Name of the finding (disease) of all boxes, or a name for each box.
        x: Left edge of each box.
        y: Upper edge of each box.
        width: Width of each box.
        height: Height of each box.

    Returns:
        A table with columns ``image_id, finding, x1, y1, x2, y2, reader``.
    """
    edges = {"x1": x, "y1": y, "x2": x + width, "y2": y + height}
    boxes = {"image_id": image_ids, "finding": finding, **edges, "reader": REFERENCE_READER}
    return pd.DataFrame(boxes).reset_index(drop=True)
