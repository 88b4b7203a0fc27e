"""Selection of the labels to export, and search for labels that label files cannot express."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted_phrase
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet

_TABLES = ("findings", "boxes", "box_coverage")
_KEY = ["image_id", "finding"]
_FACTS = ("study_id", "view", "sex", "age_years", "spacing_col_mm")


@dataclass
class LabelFiles:
    """Label files of an export, before anything is written.

    Attributes:
        texts: Content of each file by its path in the folder.
        images: Path in the folder of the file of each image, by image id.
        n_boxes: Number of boxes in the files.
        losses: One sentence for each kind of label or fact that the files cannot hold.
    """

    texts: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    n_boxes: int = 0
    losses: list[str] = field(default_factory=list)

    def lose(self, number: int, text: str) -> None:
        """Note a loss of so many things; the text begins with a noun in the plural and a verb."""
        if number:
            self.losses.append(counted_phrase(number, text))


@dataclass(frozen=True)
class AnnotationContent:
    """Images, labels and boxes that are exported for another program.

    A reader is a person who labelled images. The user chooses one reader, whose labels are exported
    under the name ``reference``.

    Attributes:
        dataset: Data set in which the labels of the chosen reader are those of ``reference``.
        images: Table of images by ``image_id``, with ``role`` (train, val, test or unused),
            ``stem`` (the id as a file name without suffix) and ``is_labelled`` (False if a label of
            the image is among `unlabelled`). What is missing is None, all roles without a split.
        unlabelled: Labels that files of boxes cannot express: ``image_id, finding, why``.
        readers: Names of the readers whose labels are not exported.
        classes: Names of the exported findings, in alphabetical order.
        targets: By name: findings that together make an image positive, as ``dataset.json`` stores
            them.
    """

    dataset: DataSet
    images: pd.DataFrame
    unlabelled: pd.DataFrame
    readers: tuple[str, ...]
    classes: tuple[str, ...]
    targets: dict[str, Target]

    def by_role(self) -> Iterator[tuple[str | None, pd.DataFrame]]:
        """Yield each role (train, val, test, unused) with the table of its images, train first.

        If the export does not state roles, it yields None with the table of all images.
        """
        if self.images["role"].isna().any():
            yield None, self.images
            return
        for role in ("train", "val", "test", "unused"):
            chosen = self.images[self.images["role"] == role]
            if len(chosen):
                yield role, chosen

    def boxes_by_image(self) -> dict[str, list[tuple[str, float, float, float, float]]]:
        """Return the exported boxes by image id, as tuples ``finding, x1, y1, x2, y2`` (px)."""
        columns = ["image_id", "finding", *EDGES]
        boxes: dict[str, list[tuple[str, float, float, float, float]]] = {}
        rows = self.dataset.boxes[columns].sort_values(columns)
        for image_id, *box in rows.itertuples(index=False, name=None):
            boxes.setdefault(image_id, []).append(tuple(box))
        return boxes

    def begin_files(self, unlabelled: str) -> LabelFiles:
        """Return empty label files with the losses that all files of boxes (COCO, YOLO) have.

        `unlabelled` are words on the images of which a label cannot be expressed.
        """
        files = LabelFiles()
        counts = self.unlabelled["why"].value_counts()
        reasons = ", ".join(f"{n:,} {why}" for why, n in counts.items())
        why = f"since a finding is neither present nor absent ({reasons})"
        files.lose(int((~self.images["is_labelled"]).sum()), f"images {unlabelled}, {why}")
        files.lose(
            int(self.images["patient_id"].nunique()),
            "patients are not exported; read back with --patient-pattern if the ids contain them",
        )
        free = [column for column in self.images.columns if column.startswith("x_")]
        several = ["source"] if self.images["source"].nunique() > 1 else []
        there = self.images.columns[self.images.notna().any()]
        facts = [*several, *(column for column in (*_FACTS, *free) if column in there)]
        if facts:
            files.losses.append(f"{', '.join(facts)}: not exported")
        files.lose(
            len(self.readers),
            f"readers are not exported: {', '.join(self.readers)}",
        )
        for name, target in self.targets.items():
            if len(target.any_of) > 1:
                members = ",".join(target.any_of)
                files.losses.append(
                    f"the target {name} is not exported; read back with --target {name}={members}"
                )
        return files


def select_content(
    dataset: DataSet,
    format: str,  # noqa: A002 - the option's own name
    *,
    split: str | None,
    reader: str,
    target: str | None,
) -> AnnotationContent:
    """Select the images, labels and boxes of a data set that are exported.

    Without `split` no assignment to train, validation and test is stated, and without `target` all
    findings are exported. The reader ``reference`` stands for the final labels, which join those of
    all people. `format` is for messages.

    Refused are an unknown reader, a finding with characters that files cannot hold, and a selection
    in which on every image some finding is unknown, uncertain or not outlined by boxes.
    """
    tables = {name: dataset.optional_table(name) for name in _TABLES}
    readers = sorted(set(tables["findings"]["reader"]) | set(tables["boxes"]["reader"]))
    if reader not in readers:
        raise InputError(f"{dataset.folder}: has no reader '{reader}'; it has {', '.join(readers)}")
    targets = dataset.targets
    if target is not None:
        members = dataset.target(target).any_of
        targets = {target: targets[target]}
        tables = {n: t[is_member(t["finding"], members)] for n, t in tables.items()}
    if reader != REFERENCE_READER:
        tables = {
            name: table[table["reader"] == reader].assign(reader=REFERENCE_READER)
            for name, table in tables.items()
        }
    reference = {name: table[table["reader"] == REFERENCE_READER] for name, table in tables.items()}
    chosen = dataset.with_tables(reference)
    classes = sorted(set(chosen.findings["finding"]) | set(chosen.boxes["finding"]))
    odd = next((name for name in classes if not name.isprintable() or name != name.strip()), None)
    if odd is not None:
        raise InputError(
            f"{dataset.folder}: finding {odd!r} has characters that label files cannot hold"
        )
    others = tuple(name for name in readers if name != reader)
    images = _images(dataset, split)
    unlabelled = _inexpressible_labels(chosen, images["image_id"], classes)
    is_labelled = ~is_member(images["image_id"], unlabelled["image_id"])
    if not is_labelled.any():
        first = unlabelled.iloc[0]
        raise InputError(
            f"{dataset.folder}: {format} cannot express it: on each image some finding is unknown, "
            f"uncertain or not fully boxed (image {first['image_id']!r}: {first['finding']} is "
            f"{first['why']}); choose one with --target"
        )
    images = images.astype(object).where(images.notna(), None).assign(is_labelled=is_labelled)
    return AnnotationContent(chosen, images, unlabelled, others, tuple(classes), targets)


def _images(dataset: DataSet, split: str | None) -> pd.DataFrame:
    images = dataset.images.sort_values("image_id", ignore_index=True)
    images["role"] = pd.Series(index=images.index, dtype=TEXT)
    if split is not None:
        roles = dataset.split(split).set_index("image_id")["role"]
        images["role"] = images["image_id"].map(roles).fillna("unused").astype(TEXT)
    images["stem"] = file_stems(images["image_id"])
    return images


def file_stems(ids: pd.Series) -> pd.Series:
    """Convert ids to file names that are unique even if upper and lower case are not distinguished.

    The ids are unique, and may have characters that no file name can have. The names have no suffix
    and the same index.

    Example:
        >>> file_stems(pd.Series(["a/b", "A_b"])).tolist()
        ['a_b-1', 'A_b']
    """
    fit = ids.str.fullmatch(r"\w[\w.-]{0,149}")  # a leading - would look like an option
    bare = ids.str.replace(r"[^\w.-]+", "_", regex=True).str.lstrip(".-")
    stems = ids.where(fit, bare.str[:150])
    # Ids that fit come first, so that they keep their names.
    ordered = stems[(~fit).sort_values(kind="stable").index]
    taken = set()
    names = {}
    for index, stem in ordered.items():
        name = stem
        number = 0
        while name.lower() in taken or not name:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names[index] = name
    return pd.Series(names, dtype=TEXT).reindex(ids.index)


def _inexpressible_labels(
    dataset: DataSet, image_ids: pd.Series, classes: Sequence[str]
) -> pd.DataFrame:
    """Return the labels that a file of boxes cannot express, with the reason ``why``.

    In such a file, a finding without a box counts as absent. It cannot say that a finding is
    unknown or uncertain, or that not all its lesions have a box.
    """
    findings = dataset.findings
    coverage = dataset.box_coverage
    named = pd.DataFrame({"finding": classes}, dtype=TEXT)
    pairs = image_ids.to_frame().merge(named, how="cross")
    whole = coverage.loc[coverage["coverage"] == "all", _KEY].assign(covered="yes")
    boxed = dataset.boxes[_KEY].drop_duplicates().assign(boxed="yes")
    pairs = pairs.merge(findings[[*_KEY, "state"]], on=_KEY, how="left")
    pairs = pairs.merge(whole, on=_KEY, how="left").merge(boxed, on=_KEY, how="left")
    state = pairs["state"]
    complete = pairs["covered"].notna() & pairs["boxed"].notna()
    why = state.map({"uncertain": "uncertain"}).where(state.notna(), "unknown")
    why = why.mask((state == "present") & ~complete, "not fully boxed")
    return pairs[_KEY].assign(why=why).dropna(ignore_index=True)
