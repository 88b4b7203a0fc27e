"""Images that a system was run on, by role: what a file states, and what is assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.markup_files import read_lines
from cxr_compare.evaluation.boxes.read_table import ReadTable, file_stem
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.known_images import KnownImages, ids_from_names

_NOUNS = {
    "train": "training images",
    "val": "validation images",
    "test": "test images",
    "unused": "images without a role",
}
_SHOWN = 5  # largest number of images that a message lists


@dataclass(frozen=True)
class SplitImages:
    """The images by their role in one split, and what a file of predictions has.

    `listed` are the ids of the images with a row or a file of predictions.
    """

    known: KnownImages
    options: ImportOptions
    listed: frozenset[str]

    def ids(self, role: str) -> set[str]:
        """Return the ids of the images with a role, such as ``test``, in the chosen split."""
        return set(self.known.ids_of_role(role, self.options.split))

    @cached_property
    def evaluated(self) -> set[str]:
        """Ids of the validation and test images of the chosen split."""
        return self.ids("val") | self.ids("test")

    @cached_property
    def other_split(self) -> str | None:
        """Name of the split to which the images belong instead of the chosen one, if there is one.

        All images of the predictions are validation or test images of that split, and not all are
        so in the chosen one. Of several such splits it is the one of whose test images the largest
        share has predictions.
        """
        if not self.listed or self.listed <= self.evaluated:
            return None
        shares: dict[str, float] = {}
        for name in self.known.splits:
            other = replace(self, options=replace(self.options, split=name))
            test = other.ids("test")
            if self.listed <= other.evaluated and self.listed & test:
                shares[name] = len(self.listed & test) / len(test)
        return max(shares, key=lambda name: shares[name], default=None)

    def require_evaluated(self, where: str, ran: Iterable[str] | None) -> None:
        """Refuse predictions that have no validation image and no test image of the split.

        `ran` are the ids of the images that the system was run on, where something says so, else
        None. The message says what the images are, and which split fits.
        """
        present = self.listed | set(ran or ())
        if not self.listed and ran is None:
            return  # a detector that found nothing
        expected = self.evaluated
        if not expected or present & expected:
            return
        raise InputError(
            f"{where}: has none of the {len(expected):,} validation and test images of split "
            f"'{self.options.split}' of {self.known.where}{self._roles_of(present)}; "
            f"{self._what_to_do()}"
        )

    def _roles_of(self, images: frozenset[str]) -> str:
        """Return a phrase on the roles that images have; empty without an image."""
        counts = {role: len(images & self.ids(role)) for role in _NOUNS}
        parts = [counted_phrase(n, _NOUNS[role]) for role, n in counts.items() if n]
        return f"; it has {' and '.join(parts)}" if parts else ""

    def _what_to_do(self) -> str:
        if self.other_split is not None and self.options.advice.split:
            return (
                f"all its images are validation or test images of split '{self.other_split}': say "
                f"{self.options.advice.split} {self.other_split}"
            )
        advice = "predict the validation and test images"
        images_run = self.options.advice.images_run
        if images_run:
            advice += f", or, if a detector was run on them and found nothing, {images_run}"
        return advice

    def assumed_run(
        self, named: Iterable[str] | None, names: Mapping[str, str]
    ) -> tuple[set[str] | None, list[str]]:
        """Return the images that a detector ran on where no option names them, and notes.

        A COCO annotation file lists the images (`named`; None without such a file). Without one, a
        detector with boxes on images of one role, such as test, and on no image of the other role
        is taken as not run on the other role. One whose images all belong to another split was run
        on the images with a box alone. Otherwise, images that were never run would decide its
        threshold, or count as images without a lesion.

        `names` has the image id by name. The ids are None for all validation and test images; there
        is a sentence for each assumption.
        """
        if named is not None:
            return {names[name] for name in named if name in names} & self.evaluated, []
        if self.other_split is not None:
            return set(), []
        without = [role for role in ("val", "test") if not self.listed & self.ids(role)]
        if len(without) != 1 or not self.ids(without[0]):
            return None, []
        (absent,) = without
        role = "test" if absent == "val" else "val"
        count = len(self.ids(absent))
        effect = {
            "val": "no threshold is chosen on them",
            "test": "cxr compare can evaluate nothing on them",
        }[absent]
        correction = f"; if they were run, {self.options.advice.images_run}"
        return self.ids(role), [
            f"{WARNING}No {_NOUNS[absent].removesuffix('s')} has a box, and {_NOUNS[role]} have: "
            f"the {count:,} are counted as not run, and {effect}"
            f"{correction if self.options.advice.images_run else ''}."
        ]

    def status(self, ran: Iterable[str] | None, *, gives_boxes: bool) -> pd.DataFrame:
        """Return the status of every image with predictions, and of every val and test image.

        `ran` are the ids of the images that a detector was run on; None for all val and test
        images. Boxes may be absent from an image, scores may not. The columns are ``image_id``,
        ``status`` (``ok`` or ``failed``) and ``reason``.
        """
        was_run = set(self.listed)
        if gives_boxes:
            was_run |= self.evaluated if ran is None else set(ran)
        image_ids = pd.Index(sorted(was_run | self.evaluated), dtype=TEXT)
        is_ok = is_member(image_ids, list(was_run))
        reason = "not listed as run" if gives_boxes else "no score in the file"
        images = pd.DataFrame({"image_id": image_ids, "status": np.where(is_ok, "ok", "failed")})
        images["reason"] = pd.Series([None if ok else reason for ok in is_ok], dtype=object)
        return images

    def notes(
        self,
        images: pd.DataFrame,
        ran: Iterable[str] | None,
        *,
        gives_boxes: bool,
        is_listed: bool = False,
    ) -> list[str]:
        """Return sentences on what was assumed of images without predictions.

        `images` is their `status`. `ran` are the ids of the images that a detector was run on,
        where something says so, else None. `is_listed` is True if the images of a COCO annotation
        file count as run.
        """
        notes = []
        is_ok = images["status"] == "ok"
        empty = set(images.loc[is_ok, "image_id"]) - self.listed
        if gives_boxes and ran is None and empty:
            is_most = 2 * len(empty) > int(is_ok.sum())
            notes.append(
                f"{WARNING if is_most else ''}{self._by_role(empty)} have no box: taken as run, "
                f"with nothing found; if some were not run, {self.options.advice.empty_images}."
            )
        listed_by = self.options.coco_truth if is_listed else None
        if gives_boxes and listed_by is not None and empty:
            verb = "has" if len(empty) == 1 else "have"
            notes.append(
                f"{counted(len(empty), 'image')} {verb} no box: run, for {Path(listed_by).name} "
                "lists them, with nothing found."
            )
        failed = set(images.loc[~is_ok, "image_id"])
        if failed:
            shown = ", ".join(sorted(failed)[:_SHOWN]) + (", ..." if len(failed) > _SHOWN else "")
            notes.append(
                f"{self._by_role(failed)} have no row in the file and count as failed ({shown})."
            )
        if failed and self.other_split is not None and self.options.advice.split:
            outside = len(self.listed - self.evaluated)
            notes.append(
                f"{WARNING}{outside:,} of the {len(self.listed):,} images in the file are neither "
                f"validation nor test images of split '{self.options.split}', but all are of split "
                f"'{self.other_split}': say {self.options.advice.split} {self.other_split} if it "
                "was run on that one."
            )
        return notes

    def _by_role(self, image_ids: set[str]) -> str:
        """Return how many images of each role these are, such as "2 of 9 test images"."""
        parts = []
        for role in ("val", "test"):
            of_role = self.ids(role)
            n = len(image_ids & of_role)
            if n:
                share = f"All {n:,}" if n == len(of_role) else f"{n:,} of {len(of_role):,}"
                parts.append(f"{share} {_NOUNS[role]}")
        return " and ".join(part if not i else part.lower() for i, part in enumerate(parts))


def images_run(ids: Mapping[str, str], options: ImportOptions) -> set[str] | None:
    """Return the ids of the images that the system ran on; None for all val and test images."""
    run_on = options.images
    if isinstance(run_on, str) and run_on in ("all", "listed"):
        return None if run_on == "all" else set()
    if isinstance(run_on, str | Path):
        path = Path(run_on)
        if not path.is_file():
            raise InputError(f"--images {run_on}: choose all, listed, or a file of image names")
        where = f"{path}: line"
        lines = list(enumerate(read_lines(path), start=1))
    else:
        where = "images: name"
        lines = list(enumerate(map(str, run_on)))
    names = {number: line.strip() for number, line in lines if line.strip()}
    matches = {n: ids.get(name) or ids.get(file_stem(name)) for n, name in names.items()}
    unknown = next((number for number, image in matches.items() if image is None), None)
    if unknown is not None and not options.ignore_unknown:
        raise InputError(
            f"{where} {unknown}: {names[unknown]!r} is no image of the data set; correct the "
            f"names, or {options.advice.unknown_rows}"
        )
    return {image for image in matches.values() if image is not None}


def listed_images(read: ReadTable, known: KnownImages, options: ImportOptions) -> Iterable[str]:
    """Return the ids of the images that have a file or a row, even an empty one."""
    if not read.listed:
        return []
    ids = known.ids_by_name
    names = ids_of_names(read.listed, ids)
    unknown = [name for name in names if name not in ids]
    if unknown and not options.ignore_unknown:
        advice, where = options.advice, read.where
        if not read.in_shares:
            raise InputError(
                f"{where}: {counted(len(unknown), 'image', 'are')} not in the data set, such as "
                f"'{unknown[0]}'; correct them, or {advice.unknown_rows}"
            )
        raise InputError(
            f"{where}: {unknown[0]}.txt has the name of no image of the data set ({len(unknown)} "
            f"such files); rename them, or {advice.unknown_files}"
        )
    return [ids[name] for name in names if name in ids]


def ids_of_names(names: Iterable[str], ids: dict[str, str]) -> list[str]:
    """Return the ids of images by their names; an unknown name stays as it is."""
    return ids_from_names(pd.Series(list(names), dtype=TEXT), ids).tolist()
