"""What every format hands to `cxr prepare`, and what several formats need on the way.

Names of findings, targets, files in folders, patients in names, and the builder of the tables.
"""

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
from cxr_compare.data_prep.formats.targets import target_of, targets_of

FINDING_KEY = ["image_id", "finding"]
_ROLES = ("split", "official")  # tables of roles
NO_PIXELS = "no image is there: a data set without pixels, to evaluate predictions on only"


def no_roles() -> pd.DataFrame:
    """An empty ``image_id, role`` table."""
    return pd.DataFrame({"image_id": [], "role": []}, dtype=TEXT)


@dataclass(frozen=True)
class ReadOptions:
    r"""What a user may state beside the folder; each format takes some of it."""

    # how several readers of one image become the reference: `majority`, `any`, `all` or
    # `reader:NAME`
    reference: str = "majority"
    labels: tuple[Path, ...] = ()  # tables of labels that lie elsewhere
    sheet: str | None = None  # of these, where they are spreadsheets with several
    # what their columns are, as ROLE=COLUMN, and TOML files that say it of whole tables
    columns: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # names of the classes where the format only numbers them
    # regular expression that finds the patient in a file's name; its first group is the patient,
    # and the group's name, where it has one, the name space: `(?P<nih>\d{8})_` turns
    # `00019124_092.png` into `nih:00019124`
    patient_pattern: str | None = None


@dataclass(frozen=True)
class SourceTables:
    """One data set as its publisher gives it, before any pixel is read."""

    format: str  # its name, as in ``--format``
    root: Path  # folder that `images.path` is relative to
    # `image_id, patient_id, patient_id_source, source, path` and whatever else of the table the
    # source knows; `path` is missing for an image without pixels. `field_width_mm` and
    # `field_height_mm`, where there, are the true size of what the image shows; they become the
    # pixel spacing once the image's size is known
    images: pd.DataFrame
    findings: pd.DataFrame
    targets: dict[str, dict[str, Any]]  # name -> `{"any_of": [...], "display_name": ...}`
    # not yet checked against the size of the images
    boxes: pd.DataFrame = field(default_factory=lambda: empty_table("boxes"))
    box_coverage: pd.DataFrame = field(default_factory=lambda: empty_table("box_coverage"))
    # `path, stage, reason` of files and images that the labels rule out
    excluded: pd.DataFrame = field(default_factory=lambda: empty_table("excluded"))
    # `image_id, role` where the source fixes the role; other images are drawn
    split: pd.DataFrame = field(default_factory=no_roles)
    # `image_id, role` of the publisher's own split, which becomes `official` beside the drawn one
    official: pd.DataFrame = field(default_factory=no_roles)
    notes: tuple[str, ...] = ()  # what a user must know, one sentence each

    def reader_notes(self, rule: str) -> list[str]:
        """How often the readers differ, and what the reference, made by a rule, lacks."""
        own = self.findings["reader"] == REFERENCE_READER
        notes = []
        readers = self.findings[~own]
        made = self.findings[own].merge(readers[FINDING_KEY].drop_duplicates())
        said = readers.groupby(FINDING_KEY)["state"].nunique()
        n_differ = int((said > 1).sum())
        n_open = int((made["state"] == "uncertain").sum())
        n_silent = readers["image_id"].nunique() - made["image_id"].nunique()
        if n_silent and (who := rule.partition("reader:")[2]):
            notes.append(f"{counted(n_silent, 'image', 'were')} not read by {who}: no reference")
        elif n_differ:
            uncertain = (
                f", which leaves {n_open:,} uncertain: neither learned nor evaluated; another rule "
                "(any, all, reader:NAME) decides more"
            )
            notes.append(
                f"{counted(readers['reader'].nunique(), 'reader')}; they differ on {n_differ:,} of "
                f"{len(said):,} labels; all that each says is kept, the reference is --reference "
                f"{rule}{uncertain * (n_open > 0)}"
            )
        present = made[is_member(made["finding"], self.boxes["finding"])].query(
            "state == 'present'"
        )
        drawn = self.boxes.loc[self.boxes["reader"] == REFERENCE_READER, FINDING_KEY]
        if n_split := len(present) - len(present.merge(drawn.drop_duplicates())):
            notes.append(
                f"{n_split} of {len(present)} present findings of the reference have no box of it: "
                "its readers agree that it is there, not where; localisation is not scored on them"
            )
        return notes


class WrongFormatError(InputError):
    """A folder is not in the format that was named."""


@dataclass(frozen=True)
class Format:
    """A format that `cxr prepare` reads: all that help, docs and detection say of it."""

    name: str  # as in `--format`
    title: str  # what it is, as the README and the docs say it
    folder: str  # what the source folder must hold, one sentence
    # whether a folder looks like it; reads names and first lines only
    detect: Callable[[Path], bool]
    # from a new builder, which knows the folder and the user's options, to the source's tables;
    # decodes no pixel
    read: Callable[[SourceBuilder], SourceTables]
    options: tuple[str, ...] = ()  # the `ReadOptions` that it takes
    sources: tuple[str, ...] = ()  # where the known data sets of this format are published
    is_deep: bool = False  # whether it reads files that lie deeper than `detect` looks
    # label tables that it makes of files of its own kind, by path; see `data_prep.formats.table`
    own_tables: Callable[[SourceBuilder], dict[Path, pd.DataFrame]] = lambda builder: {}

    def tables(
        self, source: Path, options: ReadOptions, say: Callable[[str], None]
    ) -> SourceTables:
        """The tables of a folder or, where `read` allows it, of one file."""
        builder = SourceBuilder(self, source, options, say)
        try:
            if not self.is_deep:
                builder.require_format()
            return self.read(builder)
        except UnicodeEncodeError as error:  # tables hold UTF-8, file systems hold bytes
            name = error.object.encode(errors="replace").decode()
            raise InputError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None


@dataclass
class SourceBuilder:
    """What a format gathers on its way to `SourceTables`: notes, and images that are ruled out."""

    format: Format
    root: Path  # the source folder
    options: ReadOptions
    say: Callable[[str], None] = lambda line: None  # shows what the user should see at once
    notes: list[str] = field(default_factory=list)
    out: Exclusions = field(default_factory=Exclusions)  # by image id, or by path where none is

    def label_tables(self) -> dict[Path, pd.DataFrame]:
        """The format's own label tables and those that the user gave, as text, by path."""
        own = self.format.own_tables(self)
        tables = dict(own)
        sheet = self.options.sheet
        for path in self.options.labels:
            if path not in own:
                table = read_table_file(path, sheet if is_spreadsheet(path) else None)
                tables[path] = table.text
                for note in table.notes:
                    self.say(f"{path.name}: {note}")
        if sheet is not None and not any(map(is_spreadsheet, tables)):
            raise InputError(f"--sheet {sheet}: none of the tables is a spreadsheet; leave it out")
        return tables

    def require_format(self) -> None:
        """Check that the folder looks like the format."""
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
        given: pd.Series,
        own: pd.Series,
        warning: Callable[[int], str] | None = None,
        remedy: str = "",
    ) -> pd.DataFrame:
        """``patient_id, patient_id_source``; where the patient is missing, the image's own.

        The warning begins with what is said of so many images whose patient is missing.
        """
        known = given.notna()
        n_unknown = int((~known).sum())
        if n_unknown and warning is not None:
            self.warn_of_own_patients(warning(n_unknown), remedy)
        told = known.map({True: "given", False: "assumed_image"}).astype(TEXT)
        return pd.DataFrame({"patient_id": given.where(known, own), "patient_id_source": told})

    def warn_of_own_patients(self, begin: str, remedy: str = "") -> None:
        """Note that images of unknown patients count as patients of their own."""
        self.notes.append(
            f"WARNING: {begin} counts as a patient of its own: the same person may be in "
            "training and test, and figures come out too good" + (f". {remedy}" if remedy else "")
        )

    def without_repeats(self, rows: pd.DataFrame, file: str) -> pd.DataFrame:
        """Rows of a file, exact repeats dropped with a note."""
        once = rows.drop_duplicates()
        if len(once) < len(rows):
            self.notes.append(f"{file}: {len(rows) - len(once)} repeated rows, kept once")
        return once

    def usable_files(self, files: pd.DataFrame, published: pd.Series, empty: str) -> pd.DataFrame:
        """The files that are not ruled out by their path, with ``image_id``.

        It is the file's ``name`` where that is a published one, else its path ``inside`` the set.
        """
        bare = files["inside"].str.replace(r"\.\w+$", "", regex=True)
        files = self.out.keep(files.assign(image_id=files["name"].where(published, bare)), "path")
        if files.empty:
            raise InputError(empty)
        require_unique_ids(files, self.root)
        return files.reset_index(drop=True)

    def match_files(
        self, rows: pd.DataFrame, files: pd.DataFrame, key: str, table: str, advice: str = ""
    ) -> bool:
        """Rule out rows without a file and files without a row; whether there are files at all."""
        there = is_member(rows[key], files[key])
        if not there.any() and len(files):
            raise InputError(
                f"{self.root}: none of its {len(files)} images is listed in {table}{advice}"
            )
        if len(files):
            self.out.add(rows.loc[~there, "image_id"], f"row in {table}, but no image")
            self.out.add(files.loc[~is_member(files[key], rows[key]), key], f"no row in {table}")
        return len(files) > 0

    def rule_out_boxes(self, boxes: pd.DataFrame, hint: str = "", if_widths: str = "") -> None:
        """Rule out images with an impossible box: a wrong box is a wrong label.

        Where most boxes end before they begin, the user is asked whether they are widths.
        """
        ids = boxes["image_id"].to_numpy()
        edges = boxes[EDGES].to_numpy(dtype="float64")
        edges = np.where(np.isfinite(edges), edges, np.nan)
        odd = np.isnan(edges).any(axis=1)
        self.out.add(ids[odd], "box with a missing or infinite number", edges[odd])
        flat = (edges[:, 0] >= edges[:, 2]) | (edges[:, 1] >= edges[:, 3])
        if if_widths and flat.sum() > max(2, len(flat) / 2):
            raise InputError(
                f"{self.root}: x2 is smaller than x1, or y2 than y1, in {flat.mean():.0%} of "
                f"{len(flat)} boxes: are these widths and heights? {if_widths}"
            )
        self.out.add(ids[flat], f"box of zero or negative size{hint}", edges[flat])
        outside = (edges < 0).any(axis=1)
        self.out.add(ids[outside], "box outside the image", edges[outside])

    def tables(
        self,
        images: pd.DataFrame,
        findings: pd.DataFrame,
        targets: dict[str, dict[str, Any]] | None = None,
        *,
        files: pd.DataFrame | None = None,
        **tables: pd.DataFrame | None,
    ) -> SourceTables:
        """Put the tables together: of images that are not ruled out, but for ``split``.

        ``files`` has ``image_id, path`` of what may be ruled out, which follows on ``excluded``.
        Without targets each finding is one.
        """
        paths = {} if files is None else dict(zip(files["image_id"], files["path"], strict=True))
        parts = [tables.pop("excluded", None), self.out.table(paths)]
        known = {name: table for name, table in tables.items() if table is not None}
        known |= {name: self.out.keep(known[name]) for name in _ROLES if name in known}
        return SourceTables(
            format=self.format.name,
            root=self.root,
            images=images,
            findings=findings,
            targets=targets_of(sorted(set(findings["finding"]))) if targets is None else targets,
            excluded=pd.concat([part for part in parts if part is not None], ignore_index=True),
            notes=tuple(self.notes),
            **known,
        )


def reference_rows(image_ids: Any, finding: Any, **columns: Any) -> pd.DataFrame:
    """Rows of the reference reader: ``image_id, finding, reader`` and the columns given."""
    rows = {"image_id": image_ids, "finding": finding, "reader": REFERENCE_READER, **columns}
    return pd.DataFrame(rows).reset_index(drop=True)


def sized_boxes(
    image_ids: Any, finding: Any, x: pd.Series, y: pd.Series, width: pd.Series, height: pd.Series
) -> pd.DataFrame:
    """The reference's boxes from their corner, width and height, px."""
    edges = {"x1": x, "y1": y, "x2": x + width, "y2": y + height}
    boxes = {"image_id": image_ids, "finding": finding, **edges, "reader": REFERENCE_READER}
    return pd.DataFrame(boxes).reset_index(drop=True)


def with_targets(tables: SourceTables, targets: Mapping[str, Sequence[str]]) -> SourceTables:
    """Add the user's own targets to those of the format; one of the same name is replaced."""
    findings = set(tables.findings["finding"]) | {
        member for target in tables.targets.values() for member in target["any_of"]
    }
    added = {}
    for name, members in targets.items():
        unknown = [member for member in members if member not in findings]
        if unknown or not members:
            raise InputError(
                f"--target {name}: finding '{', '.join(unknown)}' is not in the source; it has "
                f"{', '.join(sorted(findings)) or 'none'}"
            )
        added[name] = target_of(name, members)
    return replace(tables, targets={**tables.targets, **added})
