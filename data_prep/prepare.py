"""Preparation of a data set folder from a source folder: tables, pixels, splits and audit.

Every image is decoded once for the tables and all pixel stores. A journal has a line for each image
that was decoded, so that an interrupted run loses little work; see `store.decode_writer`. Its facts
become tables. From these, old images are known if others are added to the source later.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.assemble.complete import complete_tables, complete_without_files
from cxr_compare.data_prep.assemble.dataset_writer import (
    SetPlan,
    SplitAndOrigin,
    begin_set,
    end_set,
    is_complete,
    write_set,
)
from cxr_compare.data_prep.assemble.decode_source import (
    bytes_of,
    decode_source,
    stored_facts,
    unchanged_facts,
)
from cxr_compare.data_prep.assemble.exclusion_list import exclude_listed, read_exclusions
from cxr_compare.data_prep.assemble.hidden_ids import pseudonymise
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.assemble.summary import Summary, summarise
from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.pseudonyms import (
    KEY_ID_TEXT,
    hide_paths,
    keyed_hash,
    read_id_key,
)
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.tables import frame_digest, read_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet, image_labels
from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables
from cxr_compare.data_prep.splits.split_file import read_split_file
from cxr_compare.data_prep.store.build_pixel_store import build_pixel_store, open_complete_store
from cxr_compare.data_prep.store.decode_writer import DecodeWriter
from cxr_compare.data_prep.store.pixel_store import remove_stores
from cxr_compare.data_prep.store.preprocess import require_size

_FEW_PATIENTS = 10
_SHOWN = 6


def _source_id(tables: SourceTables) -> str:
    """Return a digest of all tables of the source."""
    excluded = tables.excluded[["path", "stage", "reason"]]
    frames = [tables.images, tables.findings, tables.boxes, tables.split, excluded, tables.official]
    parts = [frame_digest(frame.astype(TEXT), frame.columns) for frame in frames]
    return frame_digest(pd.DataFrame({"part": parts}), ["part"])


def _user_choices(options: PrepareOptions, key: bytes | None) -> dict[str, Any]:
    """Return the options of the user that differ from the defaults, JSON-ready."""
    stated = {f.name: getattr(options.read, f.name) for f in fields(options.read)}
    choices: dict[str, Any] = {
        name: [str(item) for item in value] if isinstance(value, tuple) else str(value)
        for name, value in stated.items()
        if value != getattr(ReadOptions(), name)
    }
    if options.targets:
        choices["targets"] = {name: list(members) for name, members in options.targets.items()}
    if options.split is not None:
        choices["split"] = str(options.split)
    if key is not None:
        choices["id_key"] = keyed_hash(key, KEY_ID_TEXT)
    return choices


def prepare(source: str | Path, out: str | Path, options: PrepareOptions) -> Summary:
    """Make a data set folder (tables, splits, images, checks) from a user's folder of images.

    For some formats the source is the path of a label table. Every image is decoded once. An
    interrupted call can be repeated, and then continues. A complete data set is not changed, except
    that resized images of further sizes are added. A folder with other files, or with a data set
    with other options, is refused.
    """
    out = Path(out)
    request = _read_request(Path(source), out, options)
    plan = request.plan
    settings = plan.settings
    tables = request.tables
    limits = _limits(tables)
    tables = replace(tables, notes=(*tables.notes, *limits))
    with folder_lock(out):
        complete = is_complete(out, settings, add=options.add)
        before = pd.Series([], dtype=TEXT)
        n_replaced = 0
        shown: tuple[str, ...] = ()
        if not complete or options.add:
            stored = stored_facts(out)
            valid = unchanged_facts(tables, stored)
            n_known = int(is_member(stored["image_id"], tables.images["image_id"]).sum())
            n_replaced = n_known - len(valid)
            complete = complete and len(valid) == tables.images["path"].notna().sum()
        if not complete:
            for line in limits:
                options.progress.say(line)
            # A warning is shown again at the end, where it is not above the progress of hours.
            shown = tuple(line for line in limits if not line.startswith("WARNING"))
            before = _known_ids(out)
            if n_replaced:
                remove_stores(out, except_sizes=options.sizes)
            _build(tables, out, request, options, stored)
        end_set(out)  # also what a call left that was killed when it had completed the set
        dataset = DataSet.open(out)
        _add_stores(dataset, tables, options)
    summary = summarise(dataset, already_complete=complete, before=before, n_replaced=n_replaced)
    return replace(summary, shown_before=shown)


@dataclass(frozen=True)
class _Request:
    """What a call asks for: tables of the source, choices of the user, and the key of the ids."""

    tables: SourceTables
    plan: SetPlan
    key: bytes | None


def _read_request(source: Path, out: Path, options: PrepareOptions) -> _Request:
    """Read source and options of a call."""
    for size in options.sizes:
        require_size(size)
    key = _read_key(options, out, source)
    say = options.progress.say
    tables = read_source(source, options.format, options.read, say, out=str(out))
    default = _user_split(options, tables)
    if key is not None:
        tables, new_names = pseudonymise(tables, key)
        if isinstance(default, tuple):
            roles, how = default
            default = roles.assign(image_id=roles["image_id"].map(new_names)), how
    source_id = _source_id(tables)
    tables = tables.with_targets(options.targets)
    settings = {
        "source_format": tables.format,
        "source_root": str(source.resolve()),
        **asdict(options.rule),
        **_user_choices(options, key),
        "source_id": source_id,  # compared after the options, which explain more
    }
    if options.exclude is not None:
        listed = read_exclusions(options.exclude)
        settings["exclude"] = frame_digest(listed, listed.columns)
        tables = exclude_listed(tables, listed, options.exclude)
    plan = SetPlan(options.name or out.resolve().name, options.rule, settings, default)
    return _Request(tables, plan, key)


def _limits(tables: SourceTables) -> list[str]:
    """Note what cannot be learned or evaluated, as far as the labels alone show it."""
    images = tables.images
    findings = tables.findings
    notes = []
    if tables.boxes.empty and len(findings) and images["path"].notna().any():
        notes.append(
            "This data set has no boxes, from which a detector learns. Train a classifier (cxr "
            "train chexnet_small), or add boxes (boxes.csv)"
        )
    reference = findings[findings["reader"] == REFERENCE_READER]
    few = []
    for name, target in tables.targets.items():
        labels = image_labels(images["image_id"], reference, target.any_of).to_numpy()
        for kind, value in (("positive", 1.0), ("negative", 0.0)):
            n_patients = images.loc[labels == value, "patient_id"].nunique()
            if n_patients < _FEW_PATIENTS:
                few.append(f"{n_patients} {kind} for {name}")
    if few and len(findings):
        more = f" and {len(few) - _SHOWN} more" if len(few) > _SHOWN else ""
        notes.append(
            f"WARNING: There are few patients: {', '.join(few[:_SHOWN])}{more}. Training, "
            "validation and test need at least one each, and figures of so few patients mean "
            "little; add images"
        )
    return notes


def _known_ids(folder: Path) -> pd.Series:
    """Return the ids of the images that a data set folder has so far."""
    path = folder / "images.parquet"
    if not path.is_file():
        return pd.Series([], dtype=TEXT)
    return read_table(path, "images", ["image_id"])["image_id"]


def _read_key(options: PrepareOptions, out: Path, source: Path) -> bytes | None:
    if options.id_key is not None:
        if options.keep_ids:
            raise InputError("--id-key and --keep-ids: choose one of them")
        return read_id_key(Path(options.id_key), out, source)
    if options.format == "dicom" and not options.keep_ids:
        raise InputError(
            "--format dicom: ids and paths may name patients; give --id-key FILE (it "
            "is made where there is none), or --keep-ids where the files are de-identified already"
        )
    return None


def _user_split(options: PrepareOptions, tables: SourceTables) -> str | SplitAndOrigin | None:
    """Read the user's own split before any image, since it may be refused."""
    if options.split is None:
        return None
    if str(options.split) != "official":
        return read_split_file(Path(options.split), tables.images)
    if not tables.official.empty:
        return "official"
    if len(tables.split) and len(tables.split) == len(tables.images):
        return None  # the source gives every image a role, which makes the default split
    raise InputError("--split official: the source has no split of its own; leave it out")


def _build(
    tables: SourceTables,
    out: Path,
    request: _Request,
    options: PrepareOptions,
    stored: pd.DataFrame,
) -> None:
    """Write every file of the data set; ``dataset.json`` is written last and completes it."""
    plan = request.plan
    begin_set(out, plan.settings)
    if tables.images["path"].isna().all():
        tables, decode = complete_without_files(tables)
    else:
        with DecodeWriter(out, options.sizes) as writer:
            require_free_space(out, bytes_of(tables.images, options.sizes))
            facts, failed = decode_source(tables, writer, stored, options)
            tables, decode = complete_tables(tables, facts, failed)
            if len(tables.images):
                writer.finish(tables.images)
    if tables.images.empty:
        first = tables.excluded.iloc[0]
        raise InputError(f"{tables.root}: no usable image; {first['path']}: {first['reason']}")
    label_notes = [
        *tables.label_notes(options.read.reference),
        *_exif_note(decode, tables, raw_boxes=options.read.raw_boxes),
    ]
    findings = tables.findings.drop(columns="implied", errors="ignore")
    tables = replace(tables, findings=findings, notes=(*label_notes, *tables.notes))
    if request.key is not None:
        images = hide_paths(tables.images, request.key)
        excluded = hide_paths(tables.excluded, request.key)
        tables = replace(tables, images=images, excluded=excluded)
    shortcuts = options.measure_shortcuts
    write_set(out, tables, decode, plan, measure_shortcuts=shortcuts, workers=options.workers)


def _exif_note(decode: pd.DataFrame, tables: SourceTables, *, raw_boxes: bool) -> list[str]:
    """Say that images were turned as their EXIF says, which their boxes must agree with."""
    n_turned = int(decode["orientation"].str.startswith("exif-").fillna(False).sum())
    if not n_turned or tables.boxes.empty:
        return []
    turned = f"{counted(n_turned, 'image', 'were')} turned as their EXIF says"
    if raw_boxes:
        return [f"{turned}, and their boxes with them (--raw-boxes)"]
    return [
        f"{turned}; boxes must be of the turned image. If they are of the stored pixels, say "
        "--raw-boxes"
    ]


def _add_stores(dataset: DataSet, tables: SourceTables, options: PrepareOptions) -> None:
    """Build the requested pixel stores that are not complete."""
    if options.sizes and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: the source gives no images, so --size does not apply")
    images = dataset.images
    for size in options.sizes:
        if open_complete_store(dataset.folder, size, images["image_id"]) is not None:
            continue
        true_paths = tables.images.set_index("image_id")["path"]  # those of a set may be hidden
        with options.progress.track(f"Pixels at {size} px", len(images)) as advance:
            build_pixel_store(
                dataset.folder,
                images.assign(path=images["image_id"].map(true_paths)),
                dataset.source_root,
                size,
                workers=options.workers,
                on_decoded=advance,
            )
