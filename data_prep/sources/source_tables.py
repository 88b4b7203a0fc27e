"""Tables of a data set before pixels are decoded, the user's options for reading, and formats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.finding_names import Target, display_name
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT

FINDING_KEY = ["image_id", "finding"]
LABEL_KEY = [*FINDING_KEY, "reader"]
NO_PIXELS = "the source holds no image file, so predictions can only be evaluated on this data set"
_LEAST_TO_MOST = ("absent", "uncertain", "present")
Show = Callable[[str], None]


def empty_roles() -> pd.DataFrame:
    """Return an empty table of images and their roles (train, val, test or unused)."""
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
            ``box_form=xyxy`` (or ``xywh``, ``cxcywh``) and ``box_unit=share`` (or ``px``,
            ``percent``) answer a question about the boxes of any format.
        class_names: Names of the classes in the order of their numbers, if the label files contain
            only numbers.
        raw_boxes: True if boxes are of the stored pixels of image files, before their EXIF
            orientation turns them. They are then turned with the images.
        patient_pattern: Regular expression that finds the patient in the name of an image file. Its
            first group is the patient number. The name of the group, if it has one, becomes the
            prefix of the patient id: ``(?P<nih>\d{8})_`` turns ``00019124_092.png`` into
            ``nih:00019124``. None if names contain no patient.
    """

    reference: str = "majority"
    labels: tuple[Path, ...] = ()
    sheet: str | None = None
    columns: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    raw_boxes: bool = False
    patient_pattern: str | None = None

    def role(self, name: str) -> str | None:
        """Return the column or answer that ``--columns`` gives for a role; None without.

        Example:
            >>> ReadOptions(columns=("box_form=xyxy",)).role("box_form")
            'xyxy'
        """
        pairs = (text.partition("=") for text in self.columns)
        return next((column for role, _, column in pairs if role == name), None)


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
            who labelled). An optional column ``implied`` is True for labels that are absent because
            the files do not name the finding.
        targets: By name: findings that together make an image positive, each as ``{"any_of": [...],
            "display_name": ...}``.
        boxes: Boxes of lesions in px of the original image.
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
        implied_note: End of the sentence that begins with the number of implied labels, such as
            "findings are absent because a label file has no box of them".
    """

    format: str
    root: Path
    images: pd.DataFrame
    findings: pd.DataFrame
    targets: dict[str, Target]
    boxes: pd.DataFrame = field(default_factory=lambda: empty_table("boxes"))
    box_coverage: pd.DataFrame = field(default_factory=lambda: empty_table("box_coverage"))
    excluded: pd.DataFrame = field(default_factory=lambda: empty_table("excluded"))
    split: pd.DataFrame = field(default_factory=empty_roles)
    official: pd.DataFrame = field(default_factory=empty_roles)
    notes: tuple[str, ...] = ()
    patient_notes: tuple[str, ...] = ()
    read_as: tuple[str, ...] = ()
    implied_note: str = ""

    def with_targets(self, targets: Mapping[str, Sequence[str]]) -> SourceTables:
        """Return a copy with targets that the user defined, which replace those of the same name.

        A target that is named after one of its findings says that the others are spellings of that
        finding: their labels and boxes become those of the one finding. An image is then present if
        it is present under any spelling. A target without findings, or with one that the data set
        does not have, is refused.
        """
        findings = set(self.findings["finding"])
        for target in self.targets.values():
            findings.update(target.any_of)
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

        A target that is named after one of its findings joins the others to it, unless the user
        defined a target for another of them, too. `defined` has the findings by target; the tables
        have these targets already.
        """
        names = {
            finding: name
            for name, findings in defined.items()
            if name in findings
            for finding in findings
            if finding not in defined
        }
        if not names:
            return self
        targets = {
            name: replace(target, any_of=_joined(target.any_of, names))
            for name, target in self.targets.items()
            if name not in names or target.any_of != (name,)
        }
        findings = _renamed(self.findings, names)
        implied = findings.get("implied", pd.Series(False, index=findings.index)).astype(bool)
        strength = findings["state"].map({state: n for n, state in enumerate(_LEAST_TO_MOST)})
        order = pd.DataFrame({"strength": -strength, "implied": implied}).sort_values(
            ["strength", "implied"], kind="stable"
        )
        coverage = _renamed(self.box_coverage, names)
        weakest_first = (coverage["coverage"] == "all").sort_values(kind="stable").index
        return replace(
            self,
            targets=targets,
            findings=findings.loc[order.index].drop_duplicates(LABEL_KEY).sort_index(),
            boxes=_renamed(self.boxes, names),
            box_coverage=coverage.loc[weakest_first].drop_duplicates(LABEL_KEY).sort_index(),
        )

    def label_notes(self, rule: str) -> list[str]:
        """Return sentences on the labels, which are exact once the tables are complete.

        `rule` is that by which the labels of several people were joined.
        """
        notes = self._reader_notes(rule)
        if "implied" in self.findings:
            implied = self.findings["implied"].astype(bool) & (self.findings["state"] == "absent")
            if implied.any() and self.implied_note:
                notes.append(counted_phrase(int(implied.sum()), self.implied_note))
        return notes

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


def _renamed(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Give the findings of a table that have other spellings their one name."""
    renamed = table.reset_index(drop=True)
    if not is_member(renamed["finding"], list(names)).any():
        return renamed
    finding = renamed["finding"].replace(dict(names)).astype(table["finding"].dtype)
    return renamed.assign(finding=finding)


@dataclass(frozen=True)
class Format:
    """A format of images and labels that ``cxr prepare`` reads, such as COCO.

    Help, documents and the recognition of formats are made from these objects. A format in another
    package is an entry point of the group ``cxr_compare.formats`` (CONTRIBUTING.md).

    Attributes:
        name: Name as in ``--format``, such as ``coco``.
        title: Name of the format in documents.
        folder: One sentence that says what the user's folder must contain.
        detect: Function that returns True if a folder, or a file of labels, looks like this format.
        read: Function that returns the tables of the data set. It gets the folder or file, the
            user's options, and a function that shows the user a line at once. No pixel is decoded.
        options: Names of the fields of `ReadOptions` that the format uses.
        sources: Web addresses at which data sets of this format are published.
        labels_alone: True if a file or folder of labels can be read without the images, as ``cxr
            compare --truth`` does.
        found_in_folder: True if the label files are found in the folder, so that only tables are
            given before it.
    """

    name: str
    title: str
    folder: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions, Show], SourceTables]
    options: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    labels_alone: bool = False
    found_in_folder: bool = False

    @property
    def takes_label_files(self) -> bool:
        """True if label files of this format are given by name before the folder of images."""
        return "labels" in self.options and not self.found_in_folder


def targets_from_findings(
    findings: Collection[str], *, any_finding: bool = False
) -> dict[str, Target]:
    """Make a target of each finding, and with `any_finding` one of all of them.

    Example:
        >>> list(targets_from_findings(["mass", "edema"], any_finding=True))
        ['mass', 'edema', 'any_finding']
    """
    targets = {name: target_from_findings(name, [name]) for name in findings}
    if any_finding:
        targets["any_finding"] = target_from_findings("any_finding", findings)
    return targets


def _joined(findings: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return findings with the name of each joined spelling, each once."""
    return tuple(dict.fromkeys(names.get(finding, finding) for finding in findings))


def target_from_findings(name: str, findings: Iterable[str]) -> Target:
    """Join findings to one target: positive if any is present.

    Example:
        >>> target_from_findings("opacity", ["consolidation", "infiltration"]).display_name
        'Opacity'
    """
    return Target(name, tuple(dict.fromkeys(findings)), display_name(name))


def reference_rows(image_ids: Any, finding: Any, **columns: Any) -> pd.DataFrame:
    """Build rows of a findings or boxes table for the reader ``reference``.

    Example:
        >>> reference_rows(["a", "b"], "mass", state="present")["state"].tolist()
        ['present', 'present']
    """
    rows = {"image_id": image_ids, "finding": finding, "reader": REFERENCE_READER, **columns}
    return pd.DataFrame(rows).reset_index(drop=True)
