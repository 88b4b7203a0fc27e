"""Predictions of other software or of a reader, checked row by row against known images.

The predictions are a CSV file or a DataFrame of scores or boxes, COCO results, or a folder with one
YOLO prediction file per image. Each line of such a file is ``class cx cy w h confidence`` in shares
of the image's size, as Ultralytics writes it with ``save_txt`` and ``save_conf``.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_check import check_predictions
from cxr_compare.data_prep.contracts.box_classes import findings_of_classes, names_finding
from cxr_compare.data_prep.contracts.box_readings import reread
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.evaluation.boxes.box_checks import (
    check_names,
    check_scores,
    near_ids,
    spread_question,
)
from cxr_compare.evaluation.boxes.boxes_table import positive_scale
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.output import System, SystemFacts
from cxr_compare.evaluation.sources.imported_images import KnownImages, SplitImages
from cxr_compare.evaluation.sources.prediction_files import (
    ColumnNames,
    file_stem,
    read_source,
)
from cxr_compare.evaluation.sources.raw_predictions import RawPredictions
from cxr_compare.evaluation.sources.reading_advice import IMPORT, ReadingAdvice

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.dataset import DataSet

__all__ = ["ColumnNames", "ReadPredictions", "read_boxes", "read_rows"]

_SHOWN = 5  # largest number of names that a message lists
_ROUNDING = 0.01  # px by which rounded shares may reach beyond their image


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    """Switch off Python's search for reference cycles in a ``with`` block or decorated function.

    The garbage collector makes this search. Rows read from files contain no reference cycles, and
    the search for them takes a fifth of the time of reading. Afterwards the collector is on again
    if it was on before.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class _NamedRows:
    """Rows of a source with the image ids and findings of a data set, and checked scores."""

    raw: RawPredictions
    where: str  # name of the source in messages
    rows: pd.DataFrame
    known: KnownImages
    names_findings: bool  # True if the source names the finding of each row

    @cached_property
    def ids(self) -> dict[str, str]:
        """Image id by each name of an image, for sources that name more than the images of rows."""
        return ids_by_name(self.known.images)

    @property
    def are_boxes(self) -> bool:
        return "x1" in self.rows


@dataclass(frozen=True)
class ReadPredictions:
    """Predictions that were read into memory and checked against the images that they may name.

    Attributes:
        name: Name of the detector, classifier or reader as shown in reports.
        kind: ``boxes`` or ``scores``.
        images: Status of every image with predictions, and of every validation and test image:
            ``image_id``, ``status`` (``ok`` or ``failed``), ``reason``.
        rows: Scores or boxes of images: ``image_id``, ``finding``, the edges of boxes in px of the
            original image, and ``score``.
        notes: What was recognised, left out, clipped or assumed, one sentence each. A sentence that
            begins with ``WARNING: `` is a caution of a comparison.
        content_id: Digest of what was read and of the options with which it was read.
    """

    name: str
    kind: Literal["boxes", "scores"]
    images: pd.DataFrame
    rows: pd.DataFrame
    notes: list[str]
    content_id: str

    def of_finding(self, findings: Sequence[str]) -> System:
        """Return the predictions of an evaluated finding, or of the findings that define it."""
        rows = self.rows[is_member(self.rows["finding"], findings)].reset_index(drop=True)
        low_high = None
        if self.kind == "scores" and len(self.rows):
            low_high = (float(self.rows["score"].min()), float(self.rows["score"].max()))
        record = {"system": self.name, "kind": self.kind, "seed": None, "trained_on": "unknown"}
        system = System(
            self.name,
            self.kind,
            self.images,
            findings=tuple(findings),
            source=self.name,
            facts=SystemFacts(
                training_id=self.content_id,
                inference_id=self.content_id,
                score_range=low_high,
                record={**record, "inference_id": self.content_id},
                notes=tuple(self.notes),
            ),
        )
        if self.kind == "boxes":
            return replace(system, boxes=rows)
        return replace(system, scores=rows)


@without_garbage_collector()
def read_rows(  # noqa: PLR0913 - options of cxr import
    source: str | Path | pd.DataFrame,
    known: KnownImages,
    *,
    name: str,
    finding: str | None = None,
    columns: ColumnNames | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    images: str | Path | Iterable[str] = "all",
    split: str = "default",
    ignore_unknown: bool = False,
    coco_truth: str | Path | None = None,
    usual_finding: str | None = None,
    scale: float | None = None,
    advice: ReadingAdvice = IMPORT,
) -> ReadPredictions:
    """Read predictions of other software, and check every row against the known images.

    A table with the columns ``x1, y1, x2, y2`` (or other names of edges that are recognised)
    contains boxes in px of the original image; any other table contains image scores. If the source
    has scores, a validation or test image without a score counts as failed. The arguments are the
    options of the command ``cxr import``.

    Args:
        source: The predictions: a CSV file or other table, a folder of YOLO text files, a COCO
            results file, or a DataFrame.
        known: Images and findings that the rows may name.
        name: Name of the detector, classifier or reader as shown in reports.
        finding: Name of the finding (disease sign) that all rows are about, such as
            ``lung_opacity``. None reads it from a column, or takes the only known finding.
        columns: Names of the columns of a table; None for ``image_id``, ``score``, ``finding`` or
            similar names that are recognised.
        class_names: Names of YOLO's class numbers, in their order: a sequence, a text with commas
            such as ``"mass,nodule"``, or a ``data.yaml`` file. None uses the ``data.yaml`` beside
            the text files; without such a file, all boxes must be of class 0. Not used for other
            sources.
        images: Images on which the detector was run. An image among them without a box is one on
            which it found nothing. ``all`` for all validation and test images, ``listed`` for the
            images with a row, a sequence of image ids, or a text file with one id per line. It
            changes nothing for image scores.
        split: Name of the division of the images into validation and test images.
        ignore_unknown: True to leave out rows of unknown images or findings, False to refuse the
            source.
        coco_truth: COCO annotation file in which a COCO results file's image and category numbers
            have names; None if the results need no names.
        usual_finding: Finding of rows that name none, if the source may also name the findings of
            its rows; None if `known` or `finding` decides.
        scale: Factor from the px of the boxes to px of the original image. None asks about boxes
            that are spread over another range than the true boxes.
        advice: What error messages and notes tell the user to do.

    Returns:
        The predictions, with notes on what was left out, clipped or assumed.

    Raises:
        InputError: The source is malformed, or has no test image of the split, or a row has an
            unknown image or finding, a score outside [0, 1] in a column that `columns` does not
            name, an impossible box, or a second score for one image and finding.
    """
    names = columns or ColumnNames()
    source_rows = _named_rows(
        source,
        known,
        names,
        finding=finding,
        class_names=class_names,
        ignore_unknown=ignore_unknown,
        coco_truth=coco_truth,
        usual_finding=usual_finding,
        advice=advice,
    )
    raw, where = source_rows.raw, source_rows.where
    table = source_rows.rows
    ran = _images_run(images, source_rows, ignore_unknown, advice)
    notes = raw.notes
    gives_boxes = source_rows.are_boxes
    kind: Literal["boxes", "scores"] = "boxes" if gives_boxes else "scores"
    if table.empty and not gives_boxes:  # only boxes may be absent
        raise InputError(f"{where}: has a header but no row of scores")
    files = _listed_files(source_rows, ignore_unknown, advice)
    of_split = SplitImages(known, split, frozenset(table["image_id"]) | set(files), advice)
    assumed: list[str] = []
    if gives_boxes and ran is None:
        ids = source_rows.ids
        ran, assumed = of_split.assumed_run(raw.ran and _ids_of(raw.ran, ids), ids)
        notes += assumed
    of_split.require_evaluated(where, ran if gives_boxes else None)
    if not gives_boxes and scale is not None:
        raise InputError(f"{where}: --scale is of boxes, and these are scores; leave it out")
    if gives_boxes:
        rows = _clipped(_in_px(table, where, known, raw, scale, advice), where, known.images, raw)
    else:
        rows = _scores(table, where)
    if gives_boxes and scale is None:
        _ask_if_resized(rows, known.boxes, where, advice)
    status = of_split.status(ran, gives_boxes=gives_boxes)
    listed_by = None if raw.ran is None else coco_truth
    stated = None if assumed else ran
    notes += of_split.notes(status, stated, gives_boxes=gives_boxes, listed_by=listed_by)
    settings: list[Any] = [kind, names.image, names.score, names.finding, finding, split]
    settings.append("all" if ran is None else sorted(ran))
    if raw.in_shares:
        settings.append(str(class_names))
    return ReadPredictions(name, kind, status, rows, notes, _content_id(raw, settings, scale))


def read_boxes(
    source: str | Path,
    dataset: DataSet,
    *,
    finding: str | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    coco_truth: str | Path | None = None,
    scale: float | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read all predicted boxes of other software as they are, and the true boxes beside them.

    No box is clipped or left out, however low its score. The arguments are those of
    `read_predictions`.

    Returns:
        The predicted boxes in px of the original image, with the columns ``image_id``, ``finding``,
        ``score``, ``x1``, ``y1``, ``x2`` and ``y2``; and the true boxes of the same findings, with
        the column ``crowd``, which is True for the crowds of `coco_truth`.

    Raises:
        InputError: The source is malformed or holds scores of images, or a row has an unknown image
            or finding, or an impossible box.
    """
    known = KnownImages.of_data_set(dataset)
    source_rows = _named_rows(
        source,
        known,
        ColumnNames(),
        finding=finding,
        class_names=class_names,
        ignore_unknown=False,
        coco_truth=coco_truth,
        usual_finding=None,
        advice=ReadingAdvice(),
    )
    raw, where = source_rows.raw, source_rows.where
    if not source_rows.are_boxes:
        raise InputError(f"{where}: holds scores of images; give predicted boxes")
    boxes = _in_px(source_rows.rows, where, known, raw, scale, ReadingAdvice())
    if scale is None:
        _ask_if_resized(boxes, known.boxes, where, ReadingAdvice(scale=IMPORT.scale))
    truth = dataset.boxes[dataset.boxes["reader"] == REFERENCE_READER]
    if not source_rows.names_findings:
        truth = truth[truth["finding"].isin(boxes["finding"].unique())]
    crowds = raw.crowds.assign(
        image_id=ids_from_names(raw.crowds["image_id"], source_rows.ids), crowd=True
    )
    crowds = _with_findings(crowds, raw, known, where)
    crowds["finding"] = _findings(crowds, where, known, None, None, ReadingAdvice())
    return boxes, pd.concat([truth, crowds])


def _named_rows(
    source: str | Path | pd.DataFrame,
    known: KnownImages,
    names: ColumnNames,
    *,
    finding: str | None,
    class_names: str | Path | Sequence[str] | None,
    ignore_unknown: bool,
    coco_truth: str | Path | None,
    usual_finding: str | None,
    advice: ReadingAdvice,
) -> _NamedRows:
    """Read the rows of a source, name their images and findings, and check their scores."""
    where = advice.frame if isinstance(source, pd.DataFrame) else str(Path(source))
    raw = read_source(source, names, coco_truth, class_names, advice)
    if "x1" in raw.rows:
        corners = raw.rows[EDGES].to_numpy(np.float64)
        corners, raw.reading = reread(corners, raw.reading, names.box_form, names.box_unit)
        raw.rows[EDGES] = corners
    table = raw.rows
    if "file_name" in table:
        table["image_id"] = names_by_file(table.pop("file_name"), table["image_id"], known.images)
    image_names = table["image_id"]
    table = _with_findings(table, raw, known, where)
    names_findings = "finding" in table
    if is_member(image_names, known.images["image_id"]).all():
        table["image_id"] = image_names.astype(TEXT)
    else:
        table["image_id"] = ids_from_names(image_names, ids_by_name(known.images))
    check_names(image_names, table["image_id"], where, table["place"])
    _ask_if_confidence(table, raw, known.labels, where, advice)
    usual_finding = usual_finding or known.usual_finding
    table["finding"] = _findings(
        table, where, known, finding, usual_finding, advice, raw.class_advice
    )
    table = _only_known(table, where, known, ignore_unknown, raw, advice)
    are_boxes = "x1" in table
    answer = advice.any_range(raw.score_column or names.score)
    any_range = bool(answer) and names.score_is_named and not are_boxes
    check_scores(table, where, any_range=any_range, answer="" if are_boxes else answer)
    return _NamedRows(raw, where, table, known, names_findings)


def _content_id(raw: RawPredictions, settings: list[Any], scale: float | None) -> str:
    """Return an id of the content that was read and of the settings with which it was read."""
    if scale is not None:
        settings = [*settings, scale]
    digest = hashlib.sha256(raw.content + json.dumps(settings).encode()).hexdigest()
    return f"import-{digest[:16]}"


def _ask_if_resized(
    rows: pd.DataFrame, true_boxes: pd.DataFrame, where: str, advice: ReadingAdvice
) -> None:
    question = spread_question(rows, true_boxes, where)
    if question:
        raise InputError(f"{question} {advice.scale}")


_ENOUGH_TO_TELL = 10  # rows from which scores of 0.5 and above alone are asked about


def _ask_if_confidence(
    rows: pd.DataFrame, raw: RawPredictions, labels: pd.Series, where: str, advice: ReadingAdvice
) -> None:
    """Ask whether scores are the confidence of the predicted class, whichever that is."""
    if not raw.score_column:
        return
    scores = rows["score"]
    is_high = len(scores) >= _ENOUGH_TO_TELL and bool(scores.between(0.5, 1).all())
    of_rows = labels.reindex(rows["image_id"]).to_numpy()
    column = ""
    for name, cells in raw.classes.items():
        is_second = (cells != cells.mode()[0]).to_numpy()[cells.notna()]
        of_class = scores[cells.notna()].to_numpy()
        first, second = of_class[~is_second], of_class[is_second]
        is_cut = first.max() <= second.min() or second.max() <= first.min()  # class = score >= cut
        known = ~np.isnan(of_rows[cells.notna()])
        is_truth = len({*zip(is_second[known], of_rows[cells.notna()][known], strict=True)}) <= 2
        if not is_cut and (is_high or not (is_truth and known.any())):
            column = str(name)
    if not column and not is_high:
        return
    reason = (
        f"confidence of the class in '{column}'" if column else "confidence of the predicted class"
    )
    also = "" if column else ", as none is below 0.5"
    raise InputError(
        f"{where}: is '{raw.score_column}' the {reason}{also}? Then give the probability of the "
        f"finding: 1 - {raw.score_column} where the class is not the finding. "
        f"{advice.confirm_score(raw.score_column)}"
    )


def ids_by_name(images: pd.DataFrame) -> dict[str, str]:
    """Map every name by which an image may be called to its image id.

    Names are the id itself, the name that files of this image have in exports of this package, and
    the name of the image's own file without folder and suffix.

    Args:
        images: Table of the images with ``image_id`` and ``path`` (missing where unknown).

    Returns:
        A dictionary from each name to the image id. A file name that two images share is left out.
    """
    from cxr_compare.data_prep.export.content import file_stems

    images = images.sort_values("image_id")
    ids = images["image_id"].tolist()
    stems = [file_stem(path) if isinstance(path, str) else "" for path in images["path"]]
    is_ambiguous = pd.Series(stems).duplicated(keep=False)
    by_file = {
        stem: image_id
        for stem, image_id, ambiguous in zip(stems, ids, is_ambiguous, strict=True)
        if not ambiguous
    }
    by_exported_name = dict(zip(file_stems(images["image_id"]), ids, strict=True))
    return by_file | by_exported_name | {image_id: image_id for image_id in ids}


def ids_from_names(names: pd.Series, ids: dict[str, str]) -> pd.Series:
    """Replace names of images by their ids in a data set; an unknown name stays as it is.

    Args:
        names: Names of images, one for each row, with or without a suffix such as ``.png``.
        ids: Dictionary from each known name to the image id, as `ids_by_name` returns it.

    Returns:
        The ids, in the order of ``names``.
    """
    if is_member(names, list(ids.values())).all():
        return names.astype(TEXT)
    unique_names = pd.Series(names.unique(), dtype=TEXT)
    stems = unique_names.str.replace(r"(?i)\.(?:png|jpe?g|dcm|dicom)$", "", regex=True)
    id_by_name = {
        name: ids.get(name, ids.get(stem, name))
        for name, stem in zip(unique_names, stems, strict=True)
    }
    return renamed(names.astype(TEXT), id_by_name)


def names_by_file(files: pd.Series, numbers: pd.Series, images: pd.DataFrame) -> pd.Series:
    """Return the image of each COCO result: the name of its file, which decides over its number.

    Args:
        files: ``file_name`` of each result.
        numbers: ``image_id`` of each result, which is returned if no file is a known image.
        images: Table of the known images with ``image_id`` and ``path``.
    """
    known_names = ids_by_name(images)
    stems = files.map(file_stem).astype(TEXT)
    return stems if stems.isin(list(known_names)).any() else numbers


def _with_findings(
    rows: pd.DataFrame, raw: RawPredictions, known: KnownImages, where: str
) -> pd.DataFrame:
    """Return rows with the finding of their class; without it if all are of the only finding."""
    if "finding" not in rows:
        return rows
    classes = rows["finding"]
    findings = findings_of_classes(classes, known.findings)
    if findings is not None:
        name_labels(classes[is_member(findings, known.findings)].unique(), where, "column")
        return rows.assign(finding=findings)
    (name,) = classes.unique()
    if names_finding(name):
        raw.notes.append(f"All boxes are of class '{name}', which is taken for the finding.")
    return rows.drop(columns="finding")


def _images_run(
    run_on: str | Path | Iterable[str],
    source_rows: _NamedRows,
    ignore_unknown: bool,
    advice: ReadingAdvice,
) -> set[str] | None:
    """Return the ids of the images that the system ran on; None for all val and test images."""
    if isinstance(run_on, str) and run_on in ("all", "listed"):
        return None if run_on == "all" else set()
    if isinstance(run_on, str | Path):
        path = Path(run_on)
        if not path.is_file():
            raise InputError(f"--images {run_on}: choose all, listed, or a file of image names")
        from cxr_compare.data_prep.sources.markup_files import read_lines

        where = f"{path}: line"
        lines = list(enumerate(read_lines(path), start=1))
    else:
        where = "images: name"
        lines = list(enumerate(map(str, run_on)))
    ids = source_rows.ids
    names = {number: line.strip() for number, line in lines if line.strip()}
    matches = {n: ids.get(name) or ids.get(file_stem(name)) for n, name in names.items()}
    unknown = next((number for number, image in matches.items() if image is None), None)
    if unknown is not None and not ignore_unknown:
        raise InputError(
            f"{where} {unknown}: {names[unknown]!r} is no image of the data set; correct the "
            f"names, or {advice.unknown_rows}"
        )
    return {image for image in matches.values() if image is not None}


def _listed_files(
    source_rows: _NamedRows, ignore_unknown: bool, advice: ReadingAdvice
) -> Iterable[str]:
    """Return the ids of the images that have a file or a row, even an empty one."""
    raw, where = source_rows.raw, source_rows.where
    if not raw.listed:
        return []
    ids = source_rows.ids
    names = _ids_of(raw.listed, ids)
    unknown = [name for name in names if name not in ids]
    if unknown and not ignore_unknown:
        if not raw.in_shares:
            raise InputError(
                f"{where}: {counted(len(unknown), 'image', 'are')} not in the data set, such as "
                f"'{unknown[0]}'; correct them, or {advice.unknown_rows}"
            )
        raise InputError(
            f"{where}: {unknown[0]}.txt has the name of no image of the data set ({len(unknown)} "
            f"such files); rename them, or {advice.unknown_files}"
        )
    return [ids[name] for name in names if name in ids]


def _ids_of(names: Iterable[str], ids: dict[str, str]) -> list[str]:
    return ids_from_names(pd.Series(list(names), dtype=TEXT), ids).tolist()


def _findings(
    rows: pd.DataFrame,
    where: str,
    known: KnownImages,
    finding: str | None,
    usual_finding: str | None,
    advice: ReadingAdvice,
    class_advice: str = "",
) -> pd.Series:
    """Return each row's finding: the source's own, `finding`, the usual one, or the only one."""
    if "finding" in rows:
        if finding is not None:
            raise InputError(
                f"{where}: names the findings of its rows; leave --finding out{class_advice}"
            )
        return rows["finding"]
    finding = finding or usual_finding
    if finding is None and len(known.findings) != 1:
        raise InputError(
            f"{where}: names no finding of {', '.join(known.findings)}; {advice.finding}"
        )
    return pd.Series(finding or known.findings[0], index=rows.index, dtype=TEXT)


def _only_known(
    rows: pd.DataFrame,
    where: str,
    known: KnownImages,
    ignore_unknown: bool,
    raw: RawPredictions,
    advice: ReadingAdvice,
) -> pd.DataFrame:
    """Refuse rows of images and findings that the data set lacks, or leave them out with a note."""
    had_rows = not rows.empty
    for column, values, noun, also, last in (
        ("image_id", known.images["image_id"], "images", raw.advice, ""),
        ("finding", known.findings, "findings", "", raw.class_advice),
    ):
        is_unknown = ~is_member(rows[column], values)
        if not is_unknown.any():
            continue
        names = rows.loc[is_unknown, column].unique()
        examples = ", ".join(repr(name[:80]) for name in names[:_SHOWN])
        if len(names) > _SHOWN:
            examples += ", ..."
        if not ignore_unknown:
            first = rows.loc[is_unknown, "place"].iloc[0]
            missing = counted_phrase(len(names), f"{noun} are")
            near = near_ids(names[:_SHOWN], values) if column == "image_id" else {}
            questions = "".join(f"; is {wrong!r} image {right!r}?" for wrong, right in near.items())
            raise InputError(
                f"{where}: {missing} not in {known.where} ({examples}), the first "
                f"at {first}{questions}; correct them{also}, or {advice.unknown_rows}{last}"
            )
        raw.notes.append(
            counted_phrase(len(names), f"{noun} unknown to the data set left out ({examples}).")
        )
        rows = rows[~is_unknown]
    if rows.empty and had_rows:
        raise InputError(f"{where}: no row is of an image and finding of {known.where}")
    return rows.reset_index(drop=True)


def _scores(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return one score for each image and finding; refuse a second score."""
    is_repeated = rows.duplicated(["image_id", "finding"])
    if is_repeated.any():
        first = rows[is_repeated].iloc[0]
        raise InputError(
            f"{where}: {first['place']} gives image '{first['image_id']}' a second score for "
            f"{first['finding']}; keep one"
        )
    return rows[["image_id", "finding", "score"]]


def _in_px(
    rows: pd.DataFrame,
    where: str,
    known: KnownImages,
    source: RawPredictions,
    scale: float | None,
    advice: ReadingAdvice,
) -> pd.DataFrame:
    """Return boxes with edges in px of the original image, checked but not clipped.

    The notes of `source` say what was left out.
    """
    in_shares = source.in_shares
    if scale is not None:
        if in_shares:
            raise InputError(
                f"{where}: scale is of boxes in px, and these are shares of the image; leave it out"
            )
        rows[EDGES] = rows[EDGES] * positive_scale(scale)
    limit = _image_limits(rows, known.images)
    if in_shares:
        has_no_size = np.isnan(limit).any(axis=1)
        if has_no_size.any():
            first = rows.iloc[int(has_no_size.argmax())]
            raise InputError(
                f"{where}: {first['place']}: {known.where} has no size of image "
                f"'{first['image_id']}', so shares of it say nothing; give boxes in pixels"
            )
        unit = limit / 100 if source.reading.unit == "percent" else limit
        rows[EDGES] = rows[EDGES].to_numpy(np.float64) * unit
    reading = replace(source.reading, where=where, answers=advice.box_answers)
    checked, notes = check_predictions(rows, reading, limit[:, :2])
    source.notes += [f"{WARNING}{note[:1].upper()}{note[1:]}." for note in notes]
    return checked.reset_index(drop=True)


def _image_limits(rows: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Return width, height, width, height of each row's image; NaN where it has no known size."""
    size = images.set_index("image_id")[["width", "height"]].astype(np.float64)
    return size.reindex(rows["image_id"]).to_numpy()[:, [0, 1, 0, 1]]


def _clipped(
    raw: pd.DataFrame, where: str, images: pd.DataFrame, source: RawPredictions
) -> pd.DataFrame:
    """Return boxes clipped to their images, the 100 most confident per image and finding.

    The notes of `source` say what was clipped or left out.
    """
    notes = source.notes
    limit = _image_limits(raw, images)
    corners = raw[EDGES].to_numpy(np.float64)
    clipped = np.clip(corners, 0, np.where(np.isnan(limit), np.inf, limit))
    has_area = (clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])
    if not has_area.all():
        row = int(np.flatnonzero(~has_area)[0])
        edges = ", ".join(f"{n}={v:g}" for n, v in zip(EDGES, corners[row], strict=True))
        raise InputError(
            f"{where}: {raw['place'].iloc[row]}, image '{raw['image_id'].iloc[row]}': "
            f"{edges}; a box needs x1 < x2 and y1 < y2 inside the image, in pixels of the original"
        )
    tolerance = _ROUNDING if source.in_shares else 0.0
    n_clipped = int((np.abs(clipped - corners) > tolerance).any(axis=1).sum())
    if n_clipped:
        notes.append(f"{counted(n_clipped, 'box')} reached beyond their image and were clipped.")
    rows = raw[["image_id", "finding", "score"]].copy()
    rows[EDGES] = clipped
    rows = rows.sort_values("score", ascending=False, kind="stable")
    rank = rows.groupby(["image_id", "finding"]).cumcount()
    kept = rows[(rank < MAX_BOXES) & (rows["score"] >= LEAST_SCORE)]
    if len(kept) < len(rows):
        left_out = counted(len(rows) - len(kept), "box")
        notes.append(
            f"{left_out} left out: below score {LEAST_SCORE}, or beyond the {MAX_BOXES} most "
            "confident of an image."
        )
    return kept.sort_index()[["image_id", "finding", *EDGES, "score"]].reset_index(drop=True)
