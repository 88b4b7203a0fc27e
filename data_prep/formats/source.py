"""The class of a format, the tables of a source before pixels are decoded, and their builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, read_table_file
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.exclusions import Exclusions
from cxr_compare.data_prep.formats.folder_scan import require_unique_ids
from cxr_compare.data_prep.formats.targets import target_from_findings, targets_from_findings

FINDING_KEY = ["image_id", "finding"]
_ROLE_TABLES = ("split", "official")
NO_PIXELS = "the source holds no image file, so predictions can only be evaluated on this data set"


def empty_roles() -> pd.DataFrame:
    """Return an empty table with the columns ``image_id`` and ``role``.

    Returns:
        The table without rows, its columns text.

    Example:
        >>> empty_roles().columns.tolist()
        ['image_id', 'role']
    """
    return pd.DataFrame({"image_id": [], "role": []}, dtype=TEXT)


@dataclass(frozen=True)
class ReadOptions:
    """Options of the user for reading a source. Each format uses some of them.

    Example:
        >>> ReadOptions(columns=("file=Image Index",)).reference
        'majority'
    """

    # How several readers of one image become the reference: `majority`, `any`, `all` or
    # `reader:NAME`.
    reference: str = "majority"
    labels: tuple[Path, ...] = ()  # label tables outside the source folder
    sheet: str | None = None  # sheet of the label tables that are spreadsheets
    # Roles of columns as ROLE=COLUMN, and TOML files that describe whole tables.
    columns: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # names of the classes, where the format only numbers them
    # Regular expression that finds the patient in a file's name. Its first group is the patient,
    # and the name of that group, if it has one, is the name space: `(?P<nih>\d{8})_` turns
    # `00019124_092.png` into `nih:00019124`.
    patient_pattern: str | None = None


@dataclass(frozen=True)
class SourceTables:
    """Tables of one data set as its publisher provides it, before any pixel is decoded."""

    format: str  # name of the format, as in ``--format``
    root: Path  # folder that `images.path` is relative to
    # `image_id, patient_id, patient_id_source, source, path` and all other columns of the images
    # table that the source knows. `path` is missing for an image without pixels.
    # `field_width_mm` and `field_height_mm` are the true size of what the image shows; they become
    # the pixel spacing once the size of the image is known.
    images: pd.DataFrame
    findings: pd.DataFrame
    targets: dict[str, dict[str, Any]]  # name -> `{"any_of": [...], "display_name": ...}`
    # Boxes that are not yet checked against the size of the images.
    boxes: pd.DataFrame = field(default_factory=lambda: empty_table("boxes"))
    box_coverage: pd.DataFrame = field(default_factory=lambda: empty_table("box_coverage"))
    # `path, stage, reason` of the files and images that the labels rule out.
    excluded: pd.DataFrame = field(default_factory=lambda: empty_table("excluded"))
    # `image_id, role` of the images whose role the source fixes; the other roles are drawn.
    split: pd.DataFrame = field(default_factory=empty_roles)
    # `image_id, role` of the publisher's own split, stored as `official` beside the drawn one.
    official: pd.DataFrame = field(default_factory=empty_roles)
    notes: tuple[str, ...] = ()  # facts about the source that a user must know, a sentence each

    def with_targets(self, targets: Mapping[str, Sequence[str]]) -> SourceTables:
        """Return the tables with targets of the user. A target replaces one with the same name.

        Args:
            targets: Findings of each target, by its name. An image is positive if any is present.

        Returns:
            The same tables with the added targets.

        Raises:
            InputError: A target names a finding that the source does not have, or none at all.
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
        return replace(self, targets={**self.targets, **added})

    def reader_notes(self, rule: str) -> list[str]:
        """Return notes on how often the readers differ, and on what the reference lacks.

        Args:
            rule: Rule that joined the readers to the reference, as in ``--reference``.
        """
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
    """A folder does not have the format that the user named."""


@dataclass(frozen=True)
class Format:
    """A format that `cxr prepare` reads; help, documents and detection are made from it."""

    name: str  # as in `--format`
    title: str  # name for people, as in the README and the documents
    folder: str  # one sentence on what the source folder must hold
    # Return True if a folder looks like this format; reads names and first lines only.
    detect: Callable[[Path], bool]
    # Turn a new builder, which knows the folder and the user's options, into the tables of the
    # source; decodes no pixel.
    read: Callable[[SourceBuilder], SourceTables]
    options: tuple[str, ...] = ()  # names of the `ReadOptions` that it takes
    sources: tuple[str, ...] = ()  # addresses where the data sets of this format are published
    is_deep: bool = False  # True if it reads files in deeper folders than `detect` looks into
    # Make label tables of files of the format's own kind, by path; see `label_table`.
    make_label_tables: Callable[[SourceBuilder], dict[Path, pd.DataFrame]] = lambda builder: {}

    def read_source(
        self, source: Path, options: ReadOptions, show: Callable[[str], None]
    ) -> SourceTables:
        """Read the tables of a folder or, if the format allows it, of one file.

        Args:
            source: Source folder or file.
            options: Options of the user.
            show: Function that is called with each line that the user should see at once.

        Raises:
            InputError: The source cannot be read, or contradicts itself.
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
    """Notes and exclusions that a format collects, and the steps that all formats share."""

    format: Format
    root: Path  # the source folder
    options: ReadOptions
    show: Callable[[str], None] = lambda line: None  # called with lines that the user sees at once
    notes: list[str] = field(default_factory=list)
    exclusions: Exclusions = field(default_factory=Exclusions)  # by image id, or path without one

    def label_tables(self) -> dict[Path, pd.DataFrame]:
        """Return the label tables of the format and of the user by path, with cells as text."""
        tables = dict(self.format.make_label_tables(self))
        sheet = self.options.sheet
        for path in self.options.labels:
            if path in tables:
                continue
            table = read_table_file(path, sheet if is_spreadsheet(path) else None)
            tables[path] = table.text
            for note in table.notes:
                self.show(f"{path.name}: {note}")
        if sheet is not None and not any(map(is_spreadsheet, tables)):
            raise InputError(f"--sheet {sheet}: none of the tables is a spreadsheet; leave it out")
        return tables

    def require_format(self) -> None:
        """Check that the folder has the format. The error names a nearby folder that has it."""
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
        """Complete missing patients, and record the source of each patient id.

        Args:
            stated: Patient of each image; missing if the source names none.
            fallback: Patient id for an image without a patient, unique to the image.
            warning: Function that returns the beginning of a warning, from the number of images
                without a patient.
            remedy: Sentence that ends the warning.

        Returns:
            A table with columns ``patient_id`` and ``patient_id_source``, one row for each image.
        """
        is_known = stated.notna()
        n_unknown = int((~is_known).sum())
        if n_unknown and warning is not None:
            self.warn_of_unknown_patients(warning(n_unknown), remedy)
        origin = is_known.map({True: "given", False: "assumed_image"}).astype(TEXT)
        patient_id = stated.where(is_known, fallback)
        return pd.DataFrame({"patient_id": patient_id, "patient_id_source": origin})

    def warn_of_unknown_patients(self, begin: str, remedy: str = "") -> None:
        """Add the note that each image of an unknown patient counts as a patient of its own.

        Args:
            begin: Beginning of the note, which names the images.
            remedy: Sentence that ends the note.
        """
        warning = (
            f"WARNING: {begin} counts as a patient of its own. The same person may then be in "
            "training and test, which makes the figures too good"
        )
        self.notes.append(f"{warning}. {remedy}" if remedy else warning)

    def drop_repeats(self, rows: pd.DataFrame, file: str) -> pd.DataFrame:
        """Remove repeated rows of a file, and add a note on their number.

        Args:
            rows: Rows of the file.
            file: Name of the file, for the note.

        Returns:
            The rows without repetitions.
        """
        unique = rows.drop_duplicates()
        if len(unique) < len(rows):
            self.notes.append(f"{file}: {len(rows) - len(unique)} repeated rows were dropped")
        return unique

    def usable_files(self, files: pd.DataFrame, published: pd.Series, empty: str) -> pd.DataFrame:
        """Return the files that are not excluded by their path, with an ``image_id``.

        Args:
            files: Table with columns ``path``, ``name`` and ``inside`` (the path inside the data
                set).
            published: True if ``name`` is a published name, which then becomes the id. Otherwise
                the path inside the data set becomes the id.
            empty: Message of the error if no file is left.
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
        """Exclude rows without a file, and files without a row.

        Args:
            rows: Rows of a label table, with ``image_id``.
            files: Image files of the source.
            key: Column that both tables have.
            table: File name of the label table, for messages.
            advice: End of the error message if the label table lists no file.

        Returns:
            True if the source has image files at all.
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

    def exclude_invalid_boxes(
        self, boxes: pd.DataFrame, hint: str = "", if_widths: str = ""
    ) -> None:
        """Exclude the images that have an impossible box, because a wrong box is a wrong label.

        Args:
            boxes: Table with columns ``image_id, x1, y1, x2, y2`` (px of the original image).
            hint: End of the reason for a box without area.
            if_widths: Advice for the case that most boxes end before they begin, because x2 and y2
                are widths and heights. "" does not check this case.

        Raises:
            InputError: Most boxes end before they begin, and `if_widths` is given.
        """
        ids = boxes["image_id"].to_numpy()
        edges = boxes[EDGES].to_numpy(dtype="float64")  # (N, 4) xyxy, original px
        edges = np.where(np.isfinite(edges), edges, np.nan)
        is_odd = np.isnan(edges).any(axis=1)
        exclusions = self.exclusions
        exclusions.add(ids[is_odd], "box with a missing or infinite number", edges[is_odd])
        is_empty = (edges[:, 0] >= edges[:, 2]) | (edges[:, 1] >= edges[:, 3])
        if if_widths and is_empty.sum() > max(2, len(is_empty) / 2):
            raise InputError(
                f"{self.root}: x2 is smaller than x1, or y2 than y1, in {is_empty.mean():.0%} of "
                f"{len(is_empty)} boxes: are these widths and heights? {if_widths}"
            )
        exclusions.add(ids[is_empty], f"box of zero or negative size{hint}", edges[is_empty])
        is_outside = (edges < 0).any(axis=1)
        exclusions.add(ids[is_outside], "box outside the image", edges[is_outside])

    def build(
        self,
        images: pd.DataFrame,
        findings: pd.DataFrame,
        targets: dict[str, dict[str, Any]] | None = None,
        *,
        files: pd.DataFrame | None = None,
        **tables: pd.DataFrame | None,
    ) -> SourceTables:
        """Build the tables of the source.

        Args:
            images: Images that are not excluded.
            findings: Findings of these images.
            targets: Targets by name. None makes a target of each finding.
            files: Table with columns ``image_id, path`` of all images that may be excluded, from
                which the ``excluded`` table takes the paths.
            **tables: Further tables of `SourceTables`. Excluded images are removed from ``split``
                and ``official``.
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
            **further,
        )


def reference_rows(image_ids: Any, finding: Any, **columns: Any) -> pd.DataFrame:
    """Build rows of the reference reader: ``image_id, finding, reader`` and further columns.

    Args:
        image_ids: Ids of N images.
        finding: Name of one finding for all rows, or a name for each row.
        **columns: Further columns, each with one value for all rows or one for each row.

    Returns:
        The rows, numbered from 0.

    Example:
        >>> reference_rows(["a", "b"], "mass", state="present")["state"].tolist()
        ['present', 'present']
    """
    rows = {"image_id": image_ids, "finding": finding, "reader": REFERENCE_READER, **columns}
    return pd.DataFrame(rows).reset_index(drop=True)


def boxes_from_sizes(
    image_ids: Any, finding: Any, x: pd.Series, y: pd.Series, width: pd.Series, height: pd.Series
) -> pd.DataFrame:
    """Build boxes of the reference from their position and size, in px of the original image.

    Args:
        image_ids: Image id of each box.
        finding: Name of one finding for all boxes, or a name for each box.
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
