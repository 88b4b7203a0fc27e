"""Selection of the labels to export, and search for labels that label files cannot express."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet

_TABLES = ("findings", "boxes", "box_coverage")
_KEY = ["image_id", "finding"]
_FACTS = ("study_id", "view", "sex", "age_years", "spacing_col_mm")


class ImageEntry(NamedTuple):
    """Facts about an image of an export, which every label file states.

    Attributes:
        image_id: Id of the image.
        stem: The id, changed so that it can be a file name, without a suffix.
        file: Path of the original file relative to the folder of the images; None for an image
            without a file.
        width: Width of the original image, px; None if unknown.
        height: Height of the original image, px; None if unknown.
        role: ``train``, ``val``, ``test`` or ``unused``; None if the export does not state them.
    """

    image_id: str
    stem: str
    file: str | None
    width: int | None
    height: int | None
    role: str | None

    @property
    def has_size(self) -> bool:
        """True if width and height are known."""
        return self.width is not None and self.height is not None


@dataclass(frozen=True)
class AnnotationContent:
    """Images, labels and boxes that are exported for another program.

    A reader is a person who labelled images. The user chooses one reader, whose labels are exported
    under the name ``reference``.

    Attributes:
        dataset: Data set in which the labels of the chosen reader are those of ``reference``.
        images: Table of images by ``image_id``, with ``role`` (train, val, test or unused; missing
            if the export does not state them), ``file`` (path of the original file) and ``stem``
            (the id as a file name without suffix).
        readers: Names of the readers whose labels are not exported.
        classes: Names of the exported findings, in alphabetical order.
        targets: By name: findings that together make an image positive, as ``dataset.json`` stores
            them.
    """

    dataset: DataSet
    images: pd.DataFrame
    readers: tuple[str, ...]
    classes: tuple[str, ...]
    targets: dict[str, Target]

    @property
    def has_roles(self) -> bool:
        """True if the export states which images are for train, validation and test."""
        return bool(self.images["role"].notna().all())

    def entries(self, images: pd.DataFrame | None = None) -> Iterator[ImageEntry]:
        """Yield the facts about each image in order.

        Args:
            images: Rows of the images table to yield; None yields all.
        """
        images = self.images if images is None else images
        columns = images[list(ImageEntry._fields)].astype(object)
        rows = columns.where(columns.notna(), None).itertuples(index=False, name=None)
        return (ImageEntry(*row) for row in rows)

    def known_facts(self) -> list[str]:
        """Return the names of facts, such as ``sex`` or ``view``, that are known for any image."""
        free = [c for c in self.images.columns if c.startswith("x_")]
        several = ["source"] if self.images["source"].nunique() > 1 else []
        known = [c for c in (*_FACTS, *free) if c in self.images and self.images[c].notna().any()]
        return [*several, *known]

    def by_role(self) -> Iterator[tuple[str | None, pd.DataFrame]]:
        """Yield each role (train, val, test, unused) with the table of its images, train first.

        If the export does not state roles, it yields None with the table of all images.
        """
        if not self.has_roles:
            yield None, self.images
            return
        for role in ("train", "val", "test", "unused"):
            chosen = self.images[self.images["role"] == role]
            if len(chosen):
                yield role, chosen

    def boxes_by_image(self) -> dict[str, list[tuple[str, float, float, float, float]]]:
        """Return the boxes of the reader ``reference``, by image id.

        The labels of this reader are the ones that are exported. An image without a box is missing.

        Returns:
            By image id, a list of tuples ``finding, x1, y1, x2, y2`` with edges in px of the
            original image.
        """
        columns = ["image_id", "finding", *EDGES]
        boxes: dict[str, list[tuple[str, float, float, float, float]]] = {}
        rows = self.dataset.boxes[columns].sort_values(columns)
        for image_id, *box in rows.itertuples(index=False, name=None):
            boxes.setdefault(image_id, []).append(tuple(box))
        return boxes

    def inexpressible_labels(self) -> pd.DataFrame:
        """Return the labels that a file of boxes, such as a YOLO file, cannot express.

        In such a file, a finding without a box counts as absent. It cannot say that a finding is
        unknown.

        They are labels of the reader ``reference``, which are the ones that are exported.

        Returns:
            A table with columns ``image_id, finding, why``. The column ``why`` has the reason: the
            finding is unknown or uncertain, or not all its lesions have a box.
        """
        findings = self.dataset.findings
        coverage = self.dataset.box_coverage
        pairs = self.images[["image_id"]].merge(
            pd.DataFrame({"finding": list(self.classes)}, dtype=TEXT), how="cross"
        )
        whole = coverage.loc[coverage["coverage"] == "all", _KEY].assign(covered="yes")
        boxed = self.dataset.boxes[_KEY].drop_duplicates().assign(boxed="yes")
        pairs = pairs.merge(findings[[*_KEY, "state"]], on=_KEY, how="left")
        pairs = pairs.merge(whole, on=_KEY, how="left").merge(boxed, on=_KEY, how="left")
        state = pairs["state"]
        complete = pairs["covered"].notna() & pairs["boxed"].notna()
        why = state.map({"uncertain": "uncertain"}).where(state.notna(), "unknown")
        why = why.mask((state == "present") & ~complete, "not fully boxed")
        return pairs[_KEY].assign(why=why).dropna(ignore_index=True)


def refuse_if_inexpressible(
    content: AnnotationContent, inexpressible_labels: pd.DataFrame, format_name: str
) -> None:
    """Refuse an export in which every image has a label that a file of boxes cannot express.

    Args:
        content: Images, labels and boxes to export.
        inexpressible_labels: Table of `AnnotationContent.inexpressible_labels`.
        format_name: Name of the file format, for the message.

    Raises:
        InputError: Every image has such a label.
    """
    if not is_member(content.images["image_id"], inexpressible_labels["image_id"]).all():
        return
    first = inexpressible_labels.iloc[0]
    raise InputError(
        f"{content.dataset.folder}: {format_name} cannot express it: on each image some finding is "
        f"unknown, uncertain or not fully boxed (image {first['image_id']!r}: "
        f"{first['finding']} is {first['why']}); choose one with --target"
    )


def select_content(
    dataset: DataSet,
    *,
    split: str | None,
    reader: str,
    target: str | None,
) -> AnnotationContent:
    """Select the images, labels and boxes of a data set that are exported.

    Args:
        dataset: A prepared data set.
        split: Name of the split, that is, of the assignment to train, validation and test, which
            the export states; None exports no assignment.
        reader: Name of the person whose labels are exported; ``reference`` for the final labels,
            which join those of all people.
        target: Name of the target whose findings are exported; None exports all findings.

    Returns:
        The selected images, labels and boxes.

    Raises:
        InputError: The reader does not exist, or a finding has characters that files cannot hold.
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
    return AnnotationContent(chosen, _images(dataset, split), others, tuple(classes), targets)


def _images(dataset: DataSet, split: str | None) -> pd.DataFrame:
    images = dataset.images.sort_values("image_id", ignore_index=True)
    images["role"] = pd.Series(index=images.index, dtype=TEXT)
    if split is not None:
        roles = dataset.split(split).set_index("image_id")["role"]
        images["role"] = images["image_id"].map(roles).fillna("unused").astype(TEXT)
    images["file"] = images["path"]
    images["stem"] = file_stems(images["image_id"])
    return images


def file_stems(ids: pd.Series) -> pd.Series:
    """Convert ids to file names that are unique even if upper and lower case are not distinguished.

    Args:
        ids: Unique ids of images, which may have characters that no file name can have.

    Returns:
        File names without suffix, with the same index.

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
