"""Predictions of other software or of a reader, checked row by row against a data set.

They come as a CSV or a DataFrame of scores or boxes, as COCO results, or as a folder of YOLO
prediction files, one an image: ``class cx cy w h confidence`` in shares of the image's size, as
Ultralytics writes them with ``save_txt`` and ``save_conf``.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member, positions, renamed
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_table_file, read_text_table
from cxr_compare.data_prep.contracts.tables import empty_table, frame_digest, typed_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line
from cxr_compare.data_prep.export.content import file_stems
from cxr_compare.data_prep.formats.coco import COCO
from cxr_compare.data_prep.formats.csv_files import CSV
from cxr_compare.data_prep.formats.finding_names import finding_name
from cxr_compare.data_prep.formats.label_files import read_lines
from cxr_compare.data_prep.formats.source import ReadOptions
from cxr_compare.data_prep.formats.table import TABLE
from cxr_compare.data_prep.formats.yolo import YOLO
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.prediction_writer import Part, PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.box_checks import (
    check_edges,
    check_inside,
    check_names,
    check_scores,
    check_shares,
    near_ids,
)
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.boxes.protocols import explain as explain_figure
from cxr_compare.evaluation.systems.prediction_files import (
    FRAME,
    ColumnNames,
    RawPredictions,
    file_stem,
    read_review,
    read_source,
)

__all__ = ["ColumnNames", "import_file", "read_predictions", "truth_set"]

_UNKNOWN_COST = ("parameters", "flops", "latency_ms", "latency_device", "batch_size")
_SHOWN = 5
_ROUNDING = 0.01  # px that shares of few digits may reach beyond their image


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python looks for no cycles: files read have none, and to look takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collector()
def read_predictions(  # noqa: PLR0913 - options of cxr import
    source: str | Path | pd.DataFrame,
    data: str | Path | DataSet,
    *,
    name: str,
    finding: str | None = None,
    columns: ColumnNames | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    images: str | Path | Iterable[str] = "all",
    split: str = "default",
    ignore_unknown: bool = False,
    coco_truth: str | Path | None = None,
    key: str | Path | None = None,
    explain: Sequence[float | str] = (),
) -> Predictions:
    """Read the predictions of any other software, or a reader's, into memory.

    A table with ``x1, y1, x2, y2`` holds boxes (original px), any other scores. Where the source
    holds scores, a val or test image without one has failed.

    Arguments are the options of `cxr import`; from Python a source may also be a DataFrame, and
    class names and images sequences of names.

    Returns:
        The predictions; what was left out, clipped or assumed is in ``info["notes"]``, and what
        explains a figure in ``info["explained"]``.

    Raises:
        InputError: The source is malformed, or a row names an unknown image or finding, a score
            outside [0, 1], an impossible box, or repeats a score.

    Example:
        >>> read_predictions("no-such.csv", "data", name="Other")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.store.identify_folder.WrongFolderError: data: no such folder; ...
    """
    dataset = data if isinstance(data, DataSet) else DataSet.open(Path(data))
    names = columns or ColumnNames()
    where = FRAME if isinstance(source, pd.DataFrame) else str(Path(source))
    raw = _read(source, names, class_names, coco_truth, key)
    called = raw.rows["image_id"]
    ids = _ids_by_name(dataset)
    ran = _images_run(images if key is None else "listed", ids, ignore_unknown)
    notes, table, explained = raw.notes, raw.rows, {}
    named = "finding" in table
    table["image_id"] = _as_ids(called, ids)
    check_names(called, table["image_id"], where, table["place"])
    table["finding"] = _findings(table, where, dataset, finding)
    table = _only_known(table, where, dataset, ignore_unknown, raw)
    check_scores(table, where)
    kind = "boxes" if "x1" in table else "scores"
    if table.empty and kind == "scores":  # no boxes at all is an answer, no scores is none
        raise InputError(f"{where}: has a header but no row of scores")
    listed = set(table["image_id"].unique()) | set(_listed_files(raw, where, ids, ignore_unknown))
    if kind == "boxes":
        rows = _boxes(table, where, dataset, raw)
        ran, assumed = _assumed_run(ran, raw, listed, dataset, split, ids)
        notes += assumed
        if explain:
            truth = dataset.boxes[dataset.boxes["reader"] == REFERENCE_READER]
            truth = truth[named | truth["finding"].isin(table["finding"].unique())]
            crowds = raw.crowds.assign(image_id=_as_ids(raw.crowds["image_id"], ids), crowd=True)
            crowds["finding"] = _findings(raw.crowds, where, dataset, None)
            roles = dataset.split(split)
            test = pd.Index(roles.loc[roles["role"] == "test", "image_id"])
            found = explain_figure(explain, table, pd.concat([truth, crowds]), test)
            explained = {"explained": found}
            notes.append(found["text"])
    elif explain:
        raise InputError(f"{where}: --explain is of boxes, and these are scores; leave it out")
    else:
        rows = _scores(table, where)
    status = _images(listed, dataset, split, kind == "boxes", ran)
    advice = "name those that were (cxr import --images FILE)"
    if dataset.is_in_memory:  # of `truth_set`
        advice = "leave those out of the true boxes' images"
    notes += _image_notes(status, listed, ran, advice if kind == "boxes" else None)
    if kind == "boxes" and raw.ran is not None:
        notes += _coco_notes(status, listed, coco_truth)
    how: list[Any] = [kind, names.image, names.score, names.finding, finding, split]
    how += ["all" if ran is None else sorted(ran)]
    how += [str(class_names)] if raw.in_shares else []
    digest = hashlib.sha256(raw.content + json.dumps(how).encode()).hexdigest()[:16]
    info = {
        "system": name,
        "seed": None,
        "kind": kind,
        "findings": sorted(rows["finding"].unique()),
        "inference_id": f"import-{digest}",
        "data_set": {
            "name": dataset.name,
            "content_id": dataset.ids["content_id"],
            "split": split,
            "split_id": dataset.ids["split_ids"].get(split),
        },
        "cost": dict.fromkeys(_UNKNOWN_COST),
        "trained_on": "unknown",
        "imported_from": "DataFrame" if isinstance(source, pd.DataFrame) else Path(source).name,
        "notes": notes,
        **explained,
        **provenance(),
    }
    return Predictions.from_part(info, Part(status, {kind: rows}))


def import_file(
    source: str | Path | pd.DataFrame,
    data: str | Path | DataSet,
    out: str | Path,
    **options: Any,
) -> Predictions:
    """Write the predictions of any other software, or a reader's, as a predictions folder.

    Args:
        source: As of `read_predictions`.
        data: As of `read_predictions`.
        out: Predictions folder to make.
        **options: Keywords of `read_predictions`.

    Raises:
        InputError: As `read_predictions`, or the folder holds something else.
    """
    read = read_predictions(source, data, **options)
    with PredictionWriter(Path(out), read.info) as writer:
        writer.add(read.images, **{read.kind: read.tables[read.kind]})
    return Predictions.open(Path(out))


def _read(
    source: str | Path | pd.DataFrame,
    names: ColumnNames,
    class_names: str | Path | Sequence[str] | None,
    coco_truth: str | Path | None,
    key: str | Path | None,
) -> RawPredictions:
    """The rows of a source, or of the filled-in form of a blind study."""
    if key is None or isinstance(source, pd.DataFrame):
        return read_source(source, names, coco_truth, class_names)
    rows = read_review(Path(source), Path(key))
    rows["place"] = "row " + rows.pop("row").astype(str)
    read = tuple(rows["image_id"].unique())
    rows = rows[rows["x1"].notna()].reset_index(drop=True) if "x1" in rows else rows
    content = Path(source).read_bytes() + Path(key).read_bytes()
    return RawPredictions(rows, content, listed=read)


def _ids_by_name(dataset: DataSet) -> dict[str, str]:
    """Image ids by what an image is called: the id, what `cxr export` makes of it, its file."""
    images = dataset.images.sort_values("image_id")
    ids = images["image_id"].tolist()
    stems = [file_stem(path) if isinstance(path, str) else "" for path in images["path"]]
    once = pd.Series(stems).duplicated(keep=False)
    by_file = {stem: name for stem, name, twice in zip(stems, ids, once, strict=True) if not twice}
    exported = dict(zip(file_stems(images["image_id"]), ids, strict=True))
    return by_file | exported | {image_id: image_id for image_id in ids}


def _as_ids(names: pd.Series, ids: dict[str, str]) -> pd.Series:
    """Image ids of names, with or without ``.png`` and the like; unknown names stay."""
    called = pd.Series(names.unique(), dtype=TEXT)
    bare = called.str.replace(r"(?i)\.(?:png|jpe?g|dcm|dicom)$", "", regex=True)
    own = {
        name: ids.get(name, ids.get(short, name)) for name, short in zip(called, bare, strict=True)
    }
    return renamed(names.astype(TEXT), own)


def _images_run(
    run_on: str | Path | Iterable[str], ids: dict[str, str], ignore_unknown: bool
) -> set[str] | None:
    """Ids of the images that are said to have been looked at; None for all val and test images."""
    if isinstance(run_on, str) and run_on in ("all", "listed"):
        return None if run_on == "all" else set()
    if isinstance(run_on, str | Path):
        path = Path(run_on)
        if not path.is_file():
            raise InputError(f"--images {run_on}: choose all, listed, or a file of image names")
        where, lines = f"{path}: line", list(enumerate(read_lines(path), start=1))
    else:
        where, lines = "images: name", list(enumerate(map(str, run_on)))
    names = {number: line.strip() for number, line in lines if line.strip()}
    found = {n: ids.get(name) or ids.get(file_stem(name)) for n, name in names.items()}
    unknown = next((number for number, image in found.items() if image is None), None)
    if unknown is not None and not ignore_unknown:
        raise InputError(
            f"{where} {unknown}: {names[unknown]!r} is no image of the data set; correct it, or "
            "leave it out with cxr import --ignore-unknown"
        )
    return {image for image in found.values() if image is not None}


def _listed_files(
    raw: RawPredictions, where: str, ids: dict[str, str], ignore_unknown: bool
) -> Iterable[str]:
    """Ids of the images that have a file, were it empty."""
    unknown = [name for name in raw.listed if name not in ids]
    if unknown and not ignore_unknown:
        raise InputError(
            f"{where}: {unknown[0]}.txt has the name of no image of the data set ({len(unknown)} "
            "such files); rename them, or leave them out with cxr import --ignore-unknown"
        )
    return [ids[name] for name in raw.listed if name in ids]


def _findings(raw: pd.DataFrame, where: str, dataset: DataSet, finding: str | None) -> pd.Series:
    """The finding of each row: the source's own, else the named one, else the only one."""
    known = _known_findings(dataset)
    if "finding" in raw:
        if finding is not None:
            raise InputError(f"{where}: names the findings of its rows; leave --finding out")
        # "Lung Opacity" of a data.yaml is the finding that cxr prepare calls lung_opacity.
        ours = {name: finding_name(name) for name in raw["finding"].unique()}
        names = {name: own if own in known else name for name, own in ours.items()}
        return renamed(raw["finding"], names)
    if finding is None and len(known) != 1:
        raise InputError(f"{where}: names no finding; cxr import --finding: {' or '.join(known)}")
    return pd.Series(finding or known[0], index=raw.index, dtype=TEXT)


def _known_findings(dataset: DataSet) -> list[str]:
    return sorted({member for target in dataset.targets.values() for member in target.any_of})


def _only_known(
    rows: pd.DataFrame, where: str, dataset: DataSet, ignore_unknown: bool, raw: RawPredictions
) -> pd.DataFrame:
    """Refuse, or leave out and count, rows of images and findings that the data set lacks."""
    for column, known, what, advice in (
        ("image_id", dataset.images["image_id"], "images", raw.advice),
        ("finding", _known_findings(dataset), "findings", ""),
    ):
        unknown = ~is_member(rows[column], known)
        if not unknown.any():
            continue
        names = rows.loc[unknown, column].unique()
        shown = ", ".join(repr(name[:80]) for name in names[:_SHOWN])
        shown += ", ..." * (len(names) > _SHOWN)
        if not ignore_unknown:
            first = rows.loc[unknown, "place"].iloc[0]
            near = near_ids(names[:_SHOWN], known) if column == "image_id" else {}
            like = "".join(f"; is {wrong!r} image {own!r}?" for wrong, own in near.items())
            raise InputError(
                f"{where}: {len(names)} {what} are not in {dataset.folder} ({shown}), the first at "
                f"{first}{like}; correct them{advice}, or leave them out with cxr import "
                "--ignore-unknown"
            )
        raw.notes.append(
            counted_phrase(len(names), f"{what} unknown to the data set left out ({shown}).")
        )
        rows = rows[~unknown]
    if rows.empty and raw.notes:
        raise InputError(f"{where}: no row is of an image and finding of {dataset.folder}")
    return rows.reset_index(drop=True)


def _scores(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    repeated = rows.duplicated(["image_id", "finding"])
    if repeated.any():
        first = rows[repeated].iloc[0]
        raise InputError(
            f"{where}: {first['place']} gives image '{first['image_id']}' a second score for "
            f"{first['finding']}; keep one"
        )
    return rows[["image_id", "finding", "score"]]


def _boxes(raw: pd.DataFrame, where: str, dataset: DataSet, source: RawPredictions) -> pd.DataFrame:
    """Boxes in px, clipped to their images, the 100 most confident per image and finding.

    `raw` gets its edges in px, too, and the notes of `source` what was clipped or left out.
    """
    in_shares, notes = source.in_shares, source.notes
    size = dataset.images.set_index("image_id")[["width", "height"]].astype(np.float64)
    limit = size.reindex(raw["image_id"]).to_numpy()[:, [0, 1, 0, 1]]
    corners = raw[EDGES].to_numpy(np.float64)
    if in_shares:
        unsized = np.isnan(limit).any(axis=1)
        if unsized.any():
            first = raw.iloc[int(unsized.argmax())]
            raise InputError(
                f"{where}: {first['place']}: {dataset.folder} has no size of image "
                f"'{first['image_id']}', so shares of it say nothing; give boxes in pixels"
            )
        check_shares(raw, where)
        raw[EDGES] = corners = corners * limit
    check_edges(raw, where, sizes=limit[:, :2])
    check_inside(raw, where, limit[:, :2], sides=source.sides)
    clipped = np.clip(corners, 0, np.where(np.isnan(limit), np.inf, limit))
    good = (clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        shown = ", ".join(f"{n}={v:g}" for n, v in zip(EDGES, corners[row], strict=True))
        raise InputError(
            f"{where}: {raw['place'].iloc[row]}, image '{raw['image_id'].iloc[row]}': "
            f"{shown}; a box needs x1 < x2 and y1 < y2 inside the image, in pixels of the original"
        )
    changed = int((np.abs(clipped - corners) > _ROUNDING * in_shares).any(axis=1).sum())
    if changed:
        notes.append(f"{counted(changed, 'box')} reached beyond their image and were clipped.")
    rows = raw[["image_id", "finding", "score"]].copy()
    rows[EDGES] = clipped
    rows = rows.sort_values("score", ascending=False, kind="stable")
    rank = rows.groupby(["image_id", "finding"]).cumcount()
    kept = rows[(rank < MAX_BOXES) & (rows["score"] >= LEAST_SCORE)]
    if len(kept) < len(rows):
        left_out = counted(len(rows) - len(kept), "box")
        most = f"beyond the {MAX_BOXES} most confident of an image."
        notes.append(f"{left_out} left out: below score {LEAST_SCORE}, or {most}")
    return kept.sort_index()[["image_id", "finding", *EDGES, "score"]].reset_index(drop=True)


def _assumed_run(
    ran: set[str] | None, raw: RawPredictions, listed: set[str], dataset: DataSet, split: str,
    ids: dict[str, str],
) -> tuple[set[str] | None, list[str]]:  # fmt: skip
    """Say which images a detector was run on where no option does; None for all val and test ones.

    A COCO annotation file lists them. Without one, a detector with boxes on test images and with
    none on any validation image was not run on these: empty ones would set its threshold.
    """
    if ran is not None:
        return ran, []
    roles = dataset.split(split)
    val, test = (set(roles.loc[roles["role"] == role, "image_id"]) for role in ("val", "test"))
    if raw.ran is not None:
        evaluated = val | test
        return {ids[name] for name in raw.ran if name in ids} & evaluated, []
    if not val or listed & val or not listed & test:
        return None, []
    note = (
        f"No validation image has a box, and test images have: the {len(val):,} are counted as "
        "not run, and no threshold is chosen on them; if they were run, name them in a file (cxr "
        "import --images FILE)."
    )
    return test, [note]


def _images(
    listed: set[str], dataset: DataSet, split: str, gives_boxes: bool, ran: set[str] | None
) -> pd.DataFrame:
    """Every image with a row or a file, and every val and test image."""
    roles = dataset.split(split)
    evaluated = roles.loc[roles["role"].isin(["val", "test"]), "image_id"]
    looked_at = listed | (set(evaluated) if ran is None else ran) if gives_boxes else listed
    every = pd.Index(sorted(looked_at | set(evaluated)), dtype=TEXT)
    is_ok = is_member(every, list(looked_at))
    reason = "not listed as run" if gives_boxes else "no score in the file"
    images = pd.DataFrame({"image_id": every, "status": np.where(is_ok, "ok", "failed")})
    images["reason"] = pd.Series([None if done else reason for done in is_ok], dtype=object)
    return images


def _image_notes(
    images: pd.DataFrame, listed: set[str], ran: set[str] | None, advice: str | None
) -> list[str]:
    """What was taken for granted of images without a row; of boxes with advice."""
    notes = []
    silent = int((~is_member(images["image_id"], list(listed))).sum())
    if advice and ran is None and silent:
        notes.append(
            f"{silent} val and test images have no box: taken as run, with nothing found; if some "
            f"were not run, {advice}."
        )
    failed = int((images["status"] == "failed").sum())
    if failed:
        notes.append(f"{failed} val and test images have no row: counted as failed.")
    return notes


def _coco_notes(images: pd.DataFrame, listed: set[str], truth: str | Path | None) -> list[str]:
    """Say which images without a box were run because an annotation file lists them."""
    empty = (images["status"] == "ok") & ~is_member(images["image_id"], list(listed))
    if not empty.any():
        return []
    counts = counted_phrase(int(empty.sum()), "images have no box")
    return [f"{counts}: run, for {Path(str(truth)).name} lists them, with nothing found."]


_FOLDERS = (CSV, YOLO, COCO)
_SIDES = {"width": "float64", "height": "float64"}


@_without_collector()
def truth_set(
    path: Path,
    patients: Path | None,
    say: Callable[[str], None],
    boxes: Path | None = None,
    columns: tuple[str, ...] = (),
) -> DataSet:
    """Read labels and true boxes as a data set in memory, without `cxr prepare`.

    They are a COCO file, a CSV of labels or boxes, or a folder of YOLO labels, COCO files or our
    three CSV files; a CSV of labels may have its `boxes` in a second CSV. No image is decoded. All
    are test images, unless the source names some. `patients` is a CSV ``image_id,patient_id``;
    `say` shows what was recognised of a CSV, and `columns` correct it as ROLE=COLUMN.

    Raises:
        InputError: Labels are malformed, or an image has no patient.
    """
    fitting = (known for known in _FOLDERS if path.is_dir() and known.detect(path))
    of_file = COCO if path.suffix.lower() == ".json" else TABLE if is_table_file(path) else None
    labels = next(fitting, None) or of_file
    if labels is None or not path.exists():
        raise InputError(f"{path}: no COCO file, CSV, or folder of COCO, YOLO or CSV files")
    if (path / "dataset.json").is_file():
        raise InputError(f"{path}: is a set that cxr prepare made; give it by --data")
    tables_given = (path,) if boxes is None else (path, boxes)
    if boxes is not None and labels is not TABLE:
        raise InputError(f"{boxes}: boxes in a file of their own need labels in a CSV")
    options = ReadOptions(columns=columns)
    if labels is TABLE:
        options = replace(options, labels=tables_given)
    tables = labels.read_source(path, options, say)
    for image, reason in tables.excluded[["path", "reason"]].itertuples(index=False):
        raise InputError(f"{path}: {image}: {reason}; correct it")
    if tables.boxes.empty and tables.findings.empty:
        raise InputError(f"{path}: holds neither boxes nor labels of images")
    images = tables.images.assign(path=None)
    every = images.columns.union(empty_table("images").columns, sort=False)
    images = images.reindex(columns=every).sort_values("image_id", ignore_index=True)
    if patients is not None:
        images = _with_patients(images, patients, path)
    held = {"images": typed_table(images, "images")}
    for name in ("findings", "boxes", "box_coverage"):
        rows = getattr(tables, name)
        held[name] = typed_table(rows[rows["reader"] == REFERENCE_READER], name)
    check_edges(held["boxes"], str(path))
    sized = held["boxes"].merge(images[["image_id", "width", "height"]].astype(_SIDES))
    for box in sized.query("x2 > width + 1 or y2 > height + 1").itertuples():
        raise InputError(
            f"{path}: image '{box.image_id}': a box ends at x={box.x2:g}, y={box.y2:g}, beyond "
            f"{box.width:g} x {box.height:g} px; a COCO box is x, y, width, height"
        )
    stated = tables.official if (tables.official["role"] == "test").any() else tables.split
    split = images[["image_id"]].merge(stated, how="left").fillna({"role": "test"})
    ids: Any = {"split_ids": {"default": frame_digest(split, ["image_id", "role"])}}
    info = {"name": path.stem, "source_format": tables.format, "source_root": str(path),
            "targets": tables.targets, "settings": {},
            "ids": DataSet.digests(*held.values()) | ids}  # fmt: skip
    return DataSet.from_info(path, info, splits={"default": split}).with_tables(held)


def _with_patients(images: pd.DataFrame, patients: Path, path: Path) -> pd.DataFrame:
    """The images with the patients of a list, which may name more images."""
    rows = read_text_table(patients, ("image_id", "patient_id"))
    refuse_line(rows["patient_id"] == "", patients, "patient_id is empty; fill it in")
    ids = _as_ids(rows["image_id"], {name: name for name in images["image_id"]})
    refuse_line(ids.duplicated(), patients, " appears more than once; keep one line", ids)
    row = positions(images["image_id"], ids)
    for image in images.loc[row < 0, "image_id"]:
        raise InputError(f"{patients}: has no line for image '{image}' of {path}; add it")
    return images.assign(patient_id=rows["patient_id"].to_numpy()[row], patient_id_source="given")
