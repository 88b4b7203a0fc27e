"""Preparation of a data set folder from a source folder: tables, pixels, splits and audit.

``dataset.json`` is written last. A call that was interrupted can be repeated, and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.audit import MeasureShortcuts, audit
from cxr_compare.data_prep.audit_page import write_audit
from cxr_compare.data_prep.base.box_check import cut_boxes
from cxr_compare.data_prep.base.boxes import FIELD_WIDTH_MM
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.files import LOCK_NAME, folder_lock, require_free_space
from cxr_compare.data_prep.base.ids import TEXT, is_member, renamed
from cxr_compare.data_prep.base.provenance import cpu_count, provenance
from cxr_compare.data_prep.base.pseudonyms import (
    KEY_ID_TEXT,
    hide_ids,
    hide_paths,
    keyed_hash,
    read_id_key,
)
from cxr_compare.data_prep.base.tables import (
    KINDS,
    REFERENCE_READER,
    empty_table,
    frame_digest,
    write_table,
)
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line
from cxr_compare.data_prep.copies import copy_keys, find_copies
from cxr_compare.data_prep.dataset import DataSet, DataSetInfo, digests, image_labels
from cxr_compare.data_prep.parallel import Engine, Progress, Silence
from cxr_compare.data_prep.pixels import (
    JOURNAL,
    DecodeTask,
    ImageFile,
    SquareWriter,
    decode_all,
    stored_sizes,
)
from cxr_compare.data_prep.preprocess import require_size
from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.data_prep.sources.source import ReadOptions, SourceTables
from cxr_compare.data_prep.splits import (
    Split,
    SplitRule,
    adopt,
    draw_split,
    read_split_file,
    settle,
)
from cxr_compare.data_prep.stored_splits import write_split

_LABEL_TABLES = ("findings", "boxes", "box_coverage", "split", "official")
_FROM_HEADER = ("view", "sex", "age_years", "spacing_row_mm", "spacing_col_mm")
_FEW_PATIENTS = 10
_LEAST_STORE_PX = 128  # side of squares from which on copies are compared in place of the files


@dataclass(frozen=True)
class Options:
    """Options of the function `prepare`, which the command `cxr prepare` explains."""

    format: str | None
    read: ReadOptions = field(default_factory=ReadOptions)
    name: str | None = None
    sizes: tuple[int, ...] = ()
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rule: SplitRule = field(default_factory=SplitRule)
    split: str | Path | None = None
    exclude: Path | None = None
    id_key: str | Path | None = None
    keep_ids: bool = False
    workers: int = field(default_factory=cpu_count)
    engine: Engine = "local"
    progress: Progress = field(default_factory=Silence)
    measure_shortcuts: MeasureShortcuts | None = None


def prepare(source: str | Path, out: str | Path, options: Options) -> DataSet:
    """Make a data set folder (tables, splits, images, checks) from a user's folder of images.

    A complete folder of the same request is opened.

    Raises:
        InputError: The source cannot be read, or the folder holds something else.
    """
    source, out = Path(source), Path(out)
    for size in options.sizes:
        require_size(size)
    key = _read_key(options, out, source)
    say = options.progress.say
    tables = read_source(source, options.format, options.read, say).with_targets(options.targets)
    split = _stated_split(options, tables)
    if key is not None:
        stated = {name: getattr(tables, name) for name in _LABEL_TABLES}
        images, labels, names = hide_ids(tables.images, stated, key)
        hidden: dict[str, Any] = {**labels, "excluded": hide_paths(tables.excluded, key)}
        tables = replace(tables, images=images, **hidden)
        if split is not None:
            table, how = split
            split = table.assign(image_id=renamed(table["image_id"], names)), how
    if options.exclude is not None:
        tables = exclude_listed(tables, options.exclude)
    limits = _limits(tables)
    tables = replace(tables, notes=(*tables.notes, *limits))
    settings = _settings(tables, options, key)
    said: Sequence[str] = ()
    with folder_lock(out):
        if not is_complete(out, settings, options.sizes):
            for line in limits:
                say(line)
            tables, decode = _decode(tables, out, settings, options)
            if tables.images.empty:
                first = tables.excluded.iloc[0]
                raise InputError(f"{source}: no usable image; {first['path']}: {first['reason']}")
            if key is not None:
                images = hide_paths(tables.images, key)
                tables = replace(tables, images=images, excluded=hide_paths(tables.excluded, key))
            name = options.name or out.resolve().name
            write_set(out, tables, decode, name, options.rule, settings, split, options)
            said = limits
        (out / JOURNAL).unlink(missing_ok=True)
    dataset = DataSet.open(out)
    for size in options.sizes:  # of a set that was complete before
        dataset.make_store(size, options.progress, options.workers)
    return replace(dataset, said=tuple(said))


def _read_key(options: Options, out: Path, source: Path) -> bytes | None:
    if options.id_key is not None:
        if options.keep_ids:
            raise InputError("--id-key and --keep-ids: choose one of them")
        return read_id_key(Path(options.id_key), out, source)
    if options.format == "dicom" and not options.keep_ids:
        raise InputError(
            "--format dicom: ids and paths may name patients; give --id-key FILE (it is made where "
            "there is none), or --keep-ids where the files are de-identified already"
        )
    return None


def _stated_split(options: Options, tables: SourceTables) -> Split | None:
    """Read the user's own split before any image, since it may be refused."""
    if options.split is None or (str(options.split) == "official" and not tables.official.empty):
        return None
    if str(options.split) != "official":
        return read_split_file(Path(options.split), tables.images)
    if len(tables.split) and len(tables.split) == len(tables.images):
        return None  # the source gives every image a role, which makes the default split
    raise InputError("--split official: the source has no split of its own; leave it out")


def _settings(tables: SourceTables, options: Options, key: bytes | None) -> dict[str, Any]:
    """Return what defines the data set: options by name, and a digest of all tables and files."""
    names = ("images", "findings", "boxes", "excluded", "split", "official")
    frames = [getattr(tables, name).astype(TEXT) for name in names]
    digest = hashlib.sha256("".join(frame_digest(f, f.columns) for f in frames).encode())
    for path in tables.images["path"].dropna():
        try:
            state = (tables.root / path).stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns};".encode())
        except OSError:  # found and listed when it is decoded
            digest.update(b"-;")
    settings = {
        "source_format": tables.format,
        "source_root": str(tables.root.resolve()),
        "source_id": digest.hexdigest()[:16],
        **asdict(options.rule),
        "targets": {name: list(target.any_of) for name, target in tables.targets.items()},
        "reference": options.read.reference,
        "raw_boxes": options.read.raw_boxes,
        "split": None if options.split is None else str(options.split),
    }
    if key is not None:
        settings["id_key"] = keyed_hash(key, KEY_ID_TEXT)
    return settings


def is_complete(out: Path, settings: dict[str, Any], sizes: Sequence[int] = ()) -> bool:
    """Return True if a folder holds the complete data set of these settings; refuse others."""
    stored = None
    if (out / "dataset.json").is_file():
        stored = DataSetInfo.read(out / "dataset.json").settings
    begun = out / JOURNAL
    if stored is None and begun.is_file():
        first = begun.read_bytes().partition(b"\n")[0].decode(errors="replace")
        stored = settings if _key_of(settings, sizes) in first else {"source_id": "that was begun"}
    if stored is not None:
        differing = [name for name in settings if stored.get(name) != settings[name]]
        if differing:
            name = differing[0]
            was = f"{name}={stored.get(name)}, and this call has {name}={settings[name]}"
            made = "other images or labels" if name.startswith("source_") else was
            raise InputError(f"{out}: was made with {made}; give the same, or choose a new folder")
        return (out / "dataset.json").is_file()
    if out.is_dir() and any(path.name not in (LOCK_NAME, "pixels") for path in out.iterdir()):
        raise InputError(f"{out}: not empty and not a cxr data set; choose a new folder")
    return False


def _key_of(settings: dict[str, Any], sizes: Sequence[int]) -> str:
    request = sorted({**settings, "sizes": sorted(sizes)}.items())
    return hashlib.sha256(repr(request).encode()).hexdigest()[:24]


def _limits(tables: SourceTables) -> list[str]:
    """Note what cannot be learned or evaluated, as far as the labels alone show it."""
    images, findings = tables.images, tables.findings
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
        more = f" and {len(few) - 6} more" if len(few) > 6 else ""
        notes.append(
            f"WARNING: There are few patients: {', '.join(few[:6])}{more}. Training, validation "
            "and test need one each, and figures of so few patients mean little; add images"
        )
    return notes


def exclude_listed(tables: SourceTables, path: Path) -> SourceTables:
    """Move the images of the user's list (``image_id``, ``reason``) to the table ``excluded``."""
    listed = read_text_table(path, ["image_id"], ["reason"]).drop_duplicates("image_id")
    images, ids = tables.images, listed["image_id"]
    unknown = pd.Series(~is_member(ids, images["image_id"]), index=ids.index)
    advice = f"whose ids look like {images['image_id'].iloc[0]!r}; correct the line or remove it"
    refuse_line(unknown, path, f" is no image of this source, {advice}", ids)
    kept: dict[str, Any] = {}
    for name in ("images", *_LABEL_TABLES):
        table = getattr(tables, name)
        kept[name] = table[~is_member(table["image_id"], ids)].reset_index(drop=True)
    if kept["images"].empty:
        raise InputError(f"{path}: names every image of the source; keep some")
    paths = images.set_index("image_id")["path"].reindex(ids).fillna(pd.Series(ids.array, ids))
    reasons = listed["reason"].mask(listed["reason"] == "", f"named in {path.name}")
    gone = pd.DataFrame({"path": paths.array, "stage": "list", "reason": reasons.array})
    return replace(tables, excluded=pd.concat([tables.excluded, gone], ignore_index=True), **kept)


def _decode(
    tables: SourceTables, out: Path, settings: dict[str, Any], options: Options
) -> tuple[SourceTables, pd.DataFrame]:
    """Decode the images of a source, and return its tables with the measured facts."""
    images = tables.images.sort_values("image_id", ignore_index=True)
    if images["path"].isna().all():
        if options.sizes:
            raise InputError(f"{tables.root}: the source gives no images, so --size is left out")
        measured = ["spacing_row_mm", "spacing_col_mm", "height", "width"]
        columns = images.columns.union(measured, sort=False)
        images = _with_spacing(images.reindex(columns=columns)).reindex(columns=_columns(images))
        return replace(tables, images=images), empty_table("decode")
    n_bytes = len(images) * (1000 + sum(size * size for size in options.sizes))
    require_free_space(out, n_bytes)
    errors: dict[str, str] = {}
    key = _key_of(settings, options.sizes)
    with SquareWriter(out, key, images["image_id"], options.sizes) as writer:
        tasks = (
            DecodeTask(image_id, ImageFile(tables.root / path), options.sizes)
            for image_id, path in zip(images["image_id"], images["path"], strict=True)
            if image_id not in writer.done
        )
        with options.progress.track("Reading images", len(images)) as advance:
            advance(len(writer.done))
            for row in decode_all(writer, tasks, options.workers, advance, options.engine):
                errors[row.image_id] = str(row.error)
        facts = writer.facts()
        tables, decode = _complete(tables, images, facts, errors, options)
        if len(tables.images):
            writer.finish(tables.images)
    return tables, decode


def _complete(
    tables: SourceTables,
    images: pd.DataFrame,
    facts: pd.DataFrame,
    errors: dict[str, str],
    options: Options,
) -> tuple[SourceTables, pd.DataFrame]:
    """Add facts of the decoded image files to the tables; a value of the source has priority."""
    paths = images.set_index("image_id")["path"]
    left_out = [(paths[image_id], "decode", reason) for image_id, reason in errors.items()]
    stated = images.reindex(columns=["image_id", "width", "height"]).merge(
        facts[["image_id", "width", "height"]], on="image_id", suffixes=("", "_found")
    )
    misfits: dict[str, str] = {}
    row: Any
    for side in ("width", "height"):
        known = stated[side].astype("float64")
        for row in stated[known.notna() & (known != stated[f"{side}_found"])].itertuples():
            sizes = (
                f"{side} {getattr(row, side):g}, the image has {getattr(row, f'{side}_found'):g}"
            )
            misfits.setdefault(row.image_id, f"not of the stated size: {sizes} px")
    left_out += [(paths[image_id], "size", reason) for image_id, reason in misfits.items()]
    facts = facts[~is_member(facts["image_id"], list(misfits))]
    joined = images.drop(columns=["height", "width"], errors="ignore")
    header = [f"header_{column}" for column in _FROM_HEADER]
    joined = joined.merge(
        facts[["image_id", "file_sha256", "height", "width", *header]], on="image_id"
    )
    for column in _FROM_HEADER:
        found = joined[f"header_{column}"]
        joined[column] = joined[column].fillna(found) if column in images else found
    kept = _with_spacing(joined).reindex(columns=_columns(images)).reset_index(drop=True)
    labels: dict[str, Any] = {}
    for name in ("findings", "boxes", "box_coverage", "split"):
        table = getattr(tables, name)
        labels[name] = table[is_member(table["image_id"], kept["image_id"])]
    limits = kept.set_index("image_id")[["width", "height"]].astype("float64")
    limits = limits.reindex(labels["boxes"]["image_id"].to_numpy())
    labels["boxes"], note = cut_boxes(labels["boxes"], limits.to_numpy())
    gone = pd.DataFrame(left_out, columns=list(tables.excluded.columns))
    excluded = pd.concat([tables.excluded, gone], ignore_index=True)
    decode = facts[list(KINDS["decode"].columns)]
    label_notes = replace(tables, images=kept, **labels).label_notes(options.read.reference)
    n_turned = int(decode["orientation"].str.startswith("exif-").fillna(False).sum())
    if n_turned and len(labels["boxes"]):
        turned = f"{counted(n_turned, 'image', 'were')} turned as their EXIF says"
        also = (
            "; boxes must be of the turned image. If they are of the stored pixels, say --raw-boxes"
        )
        if options.read.raw_boxes:
            also = ", and their boxes with them (--raw-boxes)"
        label_notes.append(turned + also)
    notes = (*label_notes, *tables.notes, *([note] if note else []))
    labels["findings"] = labels["findings"].drop(columns="implied", errors="ignore")
    return replace(tables, images=kept, excluded=excluded, notes=notes, **labels), decode


def _columns(images: pd.DataFrame) -> list[str]:
    return [*KINDS["images"].columns, *(c for c in images.columns if c.startswith("x_"))]


def _with_spacing(images: pd.DataFrame) -> pd.DataFrame:
    """Set the spacing from the true field size if known, else from the header; drop absurd ones."""
    width, height = (images[side].astype("float64") for side in ("width", "height"))
    across, down = images["spacing_col_mm"], images["spacing_row_mm"]
    if "field_width_mm" in images.columns:
        across = (images["field_width_mm"] / width).fillna(across)
        down = (images["field_height_mm"] / height).fillna(down)
    believable = (across * width).between(*FIELD_WIDTH_MM)
    return images.assign(
        spacing_col_mm=across.where(believable), spacing_row_mm=down.where(believable)
    )


def write_set(
    out: Path,
    tables: SourceTables,
    decode: pd.DataFrame,
    name: str,
    rule: SplitRule,
    settings: dict[str, Any],
    split: Split | None,
    options: Options,
) -> None:
    """Write all files of a data set folder but the squares, ``dataset.json`` last."""
    frames = {n: getattr(tables, n) for n in ("findings", "boxes", "box_coverage", "excluded")}
    frames |= {"images": tables.images.reset_index(drop=True), "decode": decode}
    frames["findings"] = frames["findings"].drop(columns="implied", errors="ignore")
    info = DataSetInfo(
        name=name,
        source_format=tables.format,
        source_root=str(tables.root.resolve()),
        targets=tables.targets,
        ids=digests(frames["images"], frames),
        settings=settings,
        id_key=settings.get("id_key"),
        **provenance(),
    )
    frames["copies"] = find_copies(decode, _reader(DataSet(out, info, frames)))
    links = copy_keys(decode, frames["copies"])
    splits = _make_splits(tables, frames["images"], links, rule, split, options)
    files = {f"{n}.parquet": write_table(f, out / f"{n}.parquet", n) for n, f in frames.items()}
    split_ids = {n: write_split(out, n, s, frames["images"], links) for n, s in splits.items()}
    notes = [f"split '{n}': {note}" for n, (_, how) in splits.items() for note in how.notes]
    ids = info.ids.with_values(split_ids=split_ids)
    info = info.with_values(ids=ids, notes=[*tables.notes, *notes], files=files)
    dataset = DataSet(out, info)
    write_audit(dataset, audit(dataset, options.measure_shortcuts), out)
    info.write(out / "dataset.json")


def _reader(dataset: DataSet) -> Any:
    """Return a function that reads an image: its square without the border, or else its file."""
    if dataset.images["path"].isna().all():
        return None
    size = next((s for s in stored_sizes(dataset.folder) if s >= _LEAST_STORE_PX), None)
    if size is None:
        return dataset.read_original
    store = dataset.store(size)
    sides = dataset.images.set_index("image_id")[["width", "height"]].astype("float64")

    def read(image_id: str) -> Any:
        placement = store.placement(image_id)
        width, height = map(float, sides.loc[image_id])
        left, top = round(placement.offset_x), round(placement.offset_y)
        right = left + max(round(width * placement.scale_x), 1)
        bottom = top + max(round(height * placement.scale_y), 1)
        return store.image(image_id)[top:bottom, left:right]

    return read


def _make_splits(
    tables: SourceTables,
    images: pd.DataFrame,
    links: pd.Series | None,
    rule: SplitRule,
    split: Split | None,
    options: Options,
) -> dict[str, Split]:
    """Make the default split, and the official one if the publisher has one."""
    made: dict[str, Split] = {}
    if len(tables.official):
        made["official"] = adopt(tables.official, images, tables.findings, rule, links)
    if split is not None:
        made["default"] = settle(split, images, links)
    elif str(options.split) == "official" and "official" in made:
        made["default"] = made["official"]
    else:
        made["default"] = draw_split(images, tables.findings, tables.split, rule, links)
    return made
