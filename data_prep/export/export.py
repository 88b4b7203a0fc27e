"""Label files for other programs and annotators, of a prepared data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.output_folders import atomic_folder
from cxr_compare.data_prep.contracts.pages import template_environment
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.export.content import (
    MISREAD,
    AnnotationContent,
    AnnotationFolder,
    ImageEntry,
    content_of,
)
from cxr_compare.data_prep.export.render import SUFFIXES
from cxr_compare.data_prep.formats import rsna
from cxr_compare.data_prep.formats.annotation_tools import PATIENTS
from cxr_compare.data_prep.formats.cxr_extension import KEY, write_objects, write_set_facts
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES
from cxr_compare.data_prep.formats.voc import SET_FACTS
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.work.pool import cpu_count

_IMAGE_MODES = ("none", *SUFFIXES, "link", "copy")
_ANNOTATION_TOOLS = ("cvat", "label-studio")
# Without images their readers load nothing.
_USUAL_MODES = {"yolo": "png", "voc": "jpeg", "cvat": "png", "label-studio": "png"}
_BYTES_A_PIXEL = {"png": 1.0, "jpeg": 0.5}  # at most, nearly


@dataclass(frozen=True, repr=False)
class ExportSummary(ShownAsText):
    """What was written."""

    format: str  # name of the format
    folder: Path  # where it is
    n_images: int  # images of the data set
    n_boxes: int  # boxes of the reader whose labels were written
    cannot: tuple[str, ...]  # what the format could not say, one sentence each

    def to_dict(self) -> dict[str, Any]:
        """The same for a program, ready for JSON."""
        return {
            "format": self.format,
            "folder": str(self.folder),
            "n_images": self.n_images,
            "n_boxes": self.n_boxes,
            "cannot_say": list(self.cannot),
        }

    def __str__(self) -> str:
        done = f"{counted(self.n_images, 'image')}, {counted(self.n_boxes, 'box')}"
        lost = [f"{self.format}: {line}" for line in self.cannot]
        return "\n".join([*lost, f"{self.folder}: {done} in {self.format} format"])

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do with it."""
        if self.format in _ANNOTATION_TOOLS:
            return ("cxr prepare FILE IMAGES OUT, for the file that the tool exports",)
        return (
            "cxr import PREDICTIONS --data DATA --name NAME --out OUT, for what another program "
            "predicts",
        )


def _write_coco(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write COCO: ``annotations/instances.json``, or a file a role with a split.

    ``file_name`` is the image's path in the source and below ``images/``, or the rendered file's.
    """
    category_ids = {name: number for number, name in enumerate(content.classes, start=1)}
    categories = [
        {"id": number, "name": name, "supercategory": "finding"}
        for name, number in category_ids.items()
    ]
    boxes = content.boxes_by_image()
    first_image = first_box = 1
    for role, images in content.by_role():
        listed = list[dict[str, Any]]()
        annotations = list[dict[str, Any]]()
        objects = write_objects(images, **content.labels)
        for number, (image, facts) in enumerate(
            zip(content.entries(images), objects, strict=True), start=first_image
        ):
            name = folder.file_name_of(image) if folder.renders else image.file or image.image_id
            size = {"width": image.width, "height": image.height} if image.has_size else {}
            listed.append({"id": number, "file_name": name, **size, KEY: facts})
            for finding, x1, y1, x2, y2 in boxes.get(image.image_id, ()):
                width = x2 - x1
                height = y2 - y1
                annotations.append(
                    {
                        "id": first_box + len(annotations),
                        "image_id": number,
                        "category_id": category_ids[finding],
                        "bbox": [x1, y1, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                        "segmentation": [],
                    }
                )
            folder.put_image(image, f"images/{name}")
        first_image = first_image + len(listed)
        first_box = first_box + len(annotations)
        known = {"pixels": content.dataset.has_pixels, **content.how, "role": role}
        written = {
            "info": {
                "description": f"{content.dataset.name}, by cxr export",
                KEY: write_set_facts(content.targets, **known),
            },
            "images": listed,
            "annotations": annotations,
            "categories": categories,
        }
        name = "instances.json" if role is None else f"instances_{role}.json"
        text = json.dumps(written, ensure_ascii=False, allow_nan=False)
        folder.write(f"annotations/{name}", text)
    folder.cannot_say(content.unsayable()["image_id"].nunique(), MISREAD)


_NIH = "nih:"


def _write_kaggle(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write the labels of the content's one target."""
    target = content.dataset.target(next(iter(content.targets)))
    label = content.dataset.labels(target).reindex(content.images["image_id"]).to_numpy()
    images = content.images.assign(label=label)
    known = images["label"].notna()
    if not known.any():
        raise InputError(f"{content.dataset.folder}: no image is labelled for {target.name}")
    stems = images.set_index("image_id")["stem"]
    boxes = content.dataset.boxes
    positive = images.loc[images["label"] == 1, "image_id"]
    boxes = boxes[is_member(boxes["image_id"], positive)]
    drawn = pd.DataFrame(
        {
            "patientId": boxes["image_id"].map(stems),
            "x": boxes["x1"],
            "y": boxes["y1"],
            "width": boxes["x2"] - boxes["x1"],
            "height": boxes["y2"] - boxes["y1"],
            "Target": 1,
        }
    )
    plain = images[known & ~is_member(images["image_id"], boxes["image_id"])]
    others = pd.DataFrame({"patientId": plain["stem"], "Target": plain["label"].astype("int64")})
    rows = pd.concat([drawn, others]).sort_values(["patientId", "x", "y"], kind="stable")
    folder.write(rsna.LABELS, rows.to_csv(index=False))
    _write_classes(images[known], folder)
    _write_mapping(images, folder)
    for image, labelled in zip(content.entries(), known, strict=True):
        place = rsna.TRAIN_IMAGES if labelled else rsna.TEST_IMAGES
        folder.put_image(image, f"{place}/{folder.file_name_of(image)}")
    _lost_in_kaggle(content, images, folder)


def _write_classes(images: pd.DataFrame, folder: AnnotationFolder) -> None:
    if "x_class" not in images.columns or images["x_class"].isna().all():
        return
    names = {ours: other for other, ours in rsna.CLASSES.items()}
    written = images["x_class"].map(names)
    is_opaque = images["x_class"] == "lung_opacity"
    if written.isna().any() or (is_opaque != (images["label"] == 1)).any():
        folder.cannot.append("cannot say x_class: its classes are not those of the challenge")
        return
    table = pd.DataFrame({"patientId": images["stem"], "class": written})
    folder.write(rsna.CLASS_INFO, table.to_csv(index=False))


def _write_mapping(images: pd.DataFrame, folder: AnnotationFolder) -> None:
    given = images["patient_id_source"] != "assumed_image"
    number = images["patient_id"].str.removeprefix(_NIH)
    is_nih = given & images["patient_id"].str.startswith(_NIH) & number.str.fullmatch(r"[^\W_]+")
    folder.cannot_say(
        int((given & ~is_nih).sum()),
        "images have a patient who is not NIH's, which cannot be said: each reads back as one",
    )
    if not is_nih.any():
        return
    nih = images[is_nih]
    number = number[is_nih]
    table = pd.DataFrame(
        {"patientId": nih["stem"], "nih_image": number + "_" + nih["stem"], "nih_patient": number}
    )
    doubtful = nih["patient_id_source"] == "mapped_unverified"
    if doubtful.any():
        table["mse"] = doubtful.map({True: "", False: "0"})
    folder.write(rsna.MAPPING, table.to_csv(index=False))


def _lost_in_kaggle(
    content: AnnotationContent, images: pd.DataFrame, folder: AnnotationFolder
) -> None:
    if content.classes != (rsna.FINDING,):
        names = ", ".join(content.classes)
        folder.cannot.append(f"the finding has no name there: {names} reads back as {rsna.FINDING}")
    folder.cannot_say(
        int(images["label"].isna().sum()), "images have no label for the target: unlabelled there"
    )
    unsayable = content.unsayable()
    partly = unsayable.loc[unsayable["why"] == "not fully boxed", "image_id"]
    folder.cannot_say(
        partly.nunique(), "positive images are not fully boxed; others read the boxes as all"
    )
    if content.has_roles:
        folder.cannot.append("cannot say a split: all labelled images are in one table")
    missing = [fact for fact in content.facts_known() if fact != "x_class"]
    if missing:
        folder.cannot.append(f"cannot say {', '.join(missing)}, unless the images' headers do")


_IMAGES_FOLDER = "JPEGImages"


def _write_voc(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write an XML file an image, named by the image's id, and the lists of the roles."""
    boxes = content.boxes_by_image()
    objects = write_objects(content.images, **content.labels)
    for image, facts in zip(content.entries(), objects, strict=True):
        name = folder.file_name_of(image)
        path = None
        folder.put_image(image, f"{_IMAGES_FOLDER}/{name}")
        if image.file is not None and folder.mode == "none":
            name = PurePosixPath(image.file).name
            path = image.file
        text = _page(
            "voc.xml.jinja",
            image=image,
            folder=_IMAGES_FOLDER,
            name=name,
            path=path,
            how=content.how,
            boxes=boxes.get(image.image_id, ()),
            facts=json.dumps(facts, allow_nan=False),
        )
        folder.write(f"Annotations/{image.stem}.xml", text + "\n")
    for role, chosen in content.by_role():
        if role is not None:
            _write_list(role, chosen, folder)
    # All that is not for testing; without a split all. Readers of VOC start from such a list.
    seen = ~is_member(content.images["role"], ["test", "unused"])
    _write_list("trainval", content.images[seen], folder)
    folder.write(SET_FACTS, json.dumps(write_set_facts(content.targets, **content.how), indent=2))
    _lost_in_voc(content, folder)


def _write_list(name: str, images: pd.DataFrame, folder: AnnotationFolder) -> None:
    folder.write(f"ImageSets/Main/{name}.txt", "".join(f"{stem}\n" for stem in images["stem"]))


def _lost_in_voc(content: AnnotationContent, folder: AnnotationFolder) -> None:
    folder.cannot_say(content.unsayable()["image_id"].nunique(), MISREAD)
    edges = content.dataset.boxes[["x1", "y1", "x2", "y2"]]
    broken = int((edges % 1 != 0).any(axis=1).sum())
    folder.cannot_say(broken, "boxes have fractions of a pixel; some programs read whole ones only")
    if not content.dataset.has_pixels:
        folder.cannot.append("there are no images: cxr prepare can read back coco only")


def _page(template: str, **said: Any) -> str:
    return template_environment(Path(__file__).parent).get_template(template).render(said)


_UNLABELLED = "unlabelled/images"


def _write_yolo(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write a label file an image, named by the image's id, shares with twelve decimals."""
    boxes = content.boxes_by_image()
    unsayable = content.unsayable()
    silent = is_member(content.images["image_id"], unsayable["image_id"])
    if silent.all():
        first = unsayable.iloc[0]
        raise InputError(
            f"{content.dataset.folder}: yolo can say nothing of it: on each image some finding is "
            f"unknown, uncertain or not fully boxed (image {first['image_id']!r}: "
            f"{first['finding']} is {first['why']}); choose one with --target"
        )
    numbers = {name: number for number, name in enumerate(content.classes)}
    for image, is_silent in zip(content.entries(), silent, strict=True):
        under = f"{image.role}/" if image.role else ""
        # Beside images/, not in it: programs take images there without a label file for negatives.
        images = _UNLABELLED if is_silent else f"images/{image.role}" if image.role else "images"
        if not is_silent:
            lines = [
                _line(numbers[name], edges, image) for name, *edges in boxes.get(image.image_id, ())
            ]
            folder.write(f"labels/{under}{image.stem}.txt", "".join(lines))
        folder.put_image(image, f"{images}/{folder.file_name_of(image)}")
    text = yaml.safe_dump(_description(content), sort_keys=False, allow_unicode=True)
    folder.write("data.yaml", text)
    _lost_in_yolo(content, folder, unsayable)


def _line(number: int, edges: list[float], image: ImageEntry) -> str:
    if image.width is None or image.height is None:
        raise InputError(f"image {image.image_id!r}: has boxes, but no size; yolo needs it")
    x1, y1, x2, y2 = edges
    width = image.width
    height = image.height
    centre = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
    shares = (*centre, (x2 - x1) / width, (y2 - y1) / height)
    return f"{number} " + " ".join(f"{share:.12f}" for share in shares) + "\n"


def _description(content: AnnotationContent) -> dict[str, Any]:
    roles = [role for role, _ in content.by_role() if role in ("train", "val", "test")]
    places = {role: f"images/{role}" for role in roles} or {"train": "images"}
    facts = write_set_facts(content.targets, pixels=True, **content.how)
    names = dict(enumerate(content.classes))
    return {**places, "nc": len(names), "names": names, KEY: facts}


def _lost_in_yolo(
    content: AnnotationContent, folder: AnnotationFolder, unsayable: pd.DataFrame
) -> None:
    counts = unsayable["why"].value_counts()
    said = ", ".join(f"{count:,} {why}" for why, count in counts.items())
    folder.cannot_say(
        unsayable["image_id"].nunique(),
        f"images have no label file, for a finding is not simply there or not ({said})",
    )
    images = content.images
    folder.cannot_say(
        int(images["patient_id"].nunique()),
        "patients cannot be said: read it back with --patient-pattern if the ids tell them",
    )
    if content.facts_known():
        folder.cannot.append(f"cannot say {', '.join(content.facts_known())}")
    renamed = int((images["stem"] != images["image_id"]).sum())
    folder.cannot_say(renamed, "image ids are no file names: changed")
    if folder.mode == "none":
        folder.cannot.append(
            "labels alone: programs look for images in images/ beside labels/ (--images png)"
        )


def _write_cvat(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write ``annotations.xml``, and ``labels.json`` as a task's constructor takes it."""
    (images, classes), system = _marked_images(content, folder), content.how.get("system")
    classes += ["unknown"] * any(marks is None for *_, marks in images)
    text = _page("cvat.xml.jinja", images=images, classes=classes, system=system)
    folder.write("annotations.xml", text)
    score = {"name": "score", "input_type": "text", "mutable": False, "values": [""]}
    labels = [{"name": name, "attributes": [score] if system else []} for name in classes]
    folder.write("labels.json", json.dumps(labels, indent=2))


def _write_label_studio(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write ``tasks.json``, and ``labels.xml`` as a project's labelling interface."""
    images, classes = _marked_images(content, folder)
    said = {"images": images, "system": content.how.get("system")}
    place = "" if folder.mode == "none" else "images/"
    folder.write("tasks.json", _page("label_studio.json.jinja", folder=place, **said))
    folder.write("labels.xml", _page("label_studio.xml.jinja", classes=classes))


def _marked_images(
    content: AnnotationContent, folder: AnnotationFolder
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Images with file name and marks (if read), and names of marks; writes `PATIENTS`, too."""
    marks = content.marks()
    listed = []
    for image in content.entries():
        name = (image.file or image.stem) if folder.mode == "none" else folder.file_name_of(image)
        if image.width is None or image.height is None:
            raise InputError(f"image {image.image_id!r}: has no size; annotation tools need it")
        own = marks.get(image.image_id)
        ends = (image.width, image.height)
        if own is not None:  # boxes that were cut out of a map may be wider than the image
            own = [(f, max(x, 0.0), max(y, 0.0), *map(min, to, ends), s) for f, x, y, *to, s in own]
        listed.append((image, name, own))
        folder.put_image(image, f"images/{name}")
    columns = ["patient_id", "study_id", "view", "sex", "age_years", "role"]
    known = content.images.reindex(columns=columns).assign(file=[name for _, name, _ in listed])
    assumed = content.images["patient_id_source"] == "assumed_image"
    known["patient_id"] = known["patient_id"].mask(assumed)
    known = known.rename(columns={"role": "split"}).dropna(axis="columns", how="all")
    folder.write(PATIENTS, known.to_csv(index=False))
    lost = content.unsayable().query("why == 'unknown' and image_id in @marks.keys()")
    told = "images: a finding is unknown, which is read back as absent"
    folder.cannot_say(lost["image_id"].nunique(), told)
    others = sorted(set(content.labels["findings"]["reader"]) - {REFERENCE_READER})
    told = f"readers: the reference alone goes out; --reader takes one of {', '.join(others)}"
    folder.cannot_say(len(others), told)
    kept = {path.stem for path in (folder.dataset.folder / "splits").glob("*.parquet")}
    splits = sorted(kept - {content.how["split"]})
    told = f"splits stay behind; --split takes one of {', '.join(splits)}"
    folder.cannot_say(len(splits), told)
    renamed = int((content.images["stem"] != content.images["image_id"]).sum())
    folder.cannot_say(renamed, "image ids are no file names: changed")
    named = {mark[0] for own in marks.values() for mark in own} - set(content.classes)
    return listed, [*content.classes, *sorted(named)]


_WRITERS: dict[str, Callable[[AnnotationContent, AnnotationFolder], None]] = {
    "coco": _write_coco,
    "voc": _write_voc,
    "yolo": _write_yolo,
    "kaggle": _write_kaggle,
    "cvat": _write_cvat,
    "label-studio": _write_label_studio,
}


def export_annotations(  # noqa: PLR0913 - options of cxr export
    dataset: DataSet,
    out: str | Path,
    format: str,  # noqa: A002 - the option's own name
    *,
    split: str | None = None,
    reader: str = REFERENCE_READER,
    target: str | None = None,
    images: str | None = None,
    predicted: Mapping[str, pd.DataFrame] | None = None,
    system: str = "",
    workers: int | None = 1,
    advance: Callable[[int], None] = lambda n: None,
) -> ExportSummary:
    """Write a data set's labels for other programs; the folder appears whole or not at all.

    docs/formats.md says what each format holds, and which `images` it gets by default. Without a
    `split` no roles are written, without a `target` all findings are (``kaggle`` holds one target).
    `predicted` are the tables ``findings``, ``boxes`` and ``box_coverage``, with ``score``, of what
    `system` predicted, which annotators of ``cvat`` and ``label-studio`` correct. `workers` render
    images: 1 works in this process, None takes all processors. `advance` is told how many are done.
    """
    out = Path(out)
    if format not in _WRITERS:
        raise InputError(f"--format {format}: use one of {', '.join(_WRITERS)}")
    if images is None:
        images = _USUAL_MODES.get(format, "none") if dataset.has_pixels else "none"
    if images not in _IMAGE_MODES:
        raise InputError(f"--images {images}: use one of {', '.join(_IMAGE_MODES)}")
    if images != "none" and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: has no image files; leave out --images {images}")
    if format == "kaggle":
        target = dataset.target(target).name
    if images == "link" and "id_key" in dataset.info:
        raise InputError(
            f"{dataset.folder}: links would show the paths that its key hides; use --images png"
        )
    if predicted and format not in _ANNOTATION_TOOLS:
        raise InputError(f"--predictions: {format} holds labels alone; use cvat or label-studio")
    content = content_of(dataset, split=split, reader=reader, target=target, predicted=predicted)
    content.how.update({"system": system} if system else {})
    require_free_space(out, _bytes_needed(content, images))
    with atomic_folder(out) as temporary:
        folder = AnnotationFolder(temporary, images, dataset, advance)
        _WRITERS[format](content, folder)
        folder.render(cpu_count() if workers is None else workers)
    if images in ("link", "copy") and format != "kaggle":
        suffixes = content.images["file"].str.lower().str.extract(r"(\.[^./]*)$", expand=False)
        folder.cannot_say(
            int((~suffixes.isin(IMAGE_SUFFIXES[:-2])).sum()),
            "images are DICOM, which many programs of this format do not read; --images png "
            "renders them",
        )
    if images == "copy" and "id_key" in dataset.info:
        folder.cannot.append("the copies keep their headers, which may name the patients")
    n_boxes = len(content.dataset.boxes)
    return ExportSummary(format, out, len(content.images), n_boxes, tuple(folder.cannot))


def _bytes_needed(content: AnnotationContent, mode: str) -> int:
    if mode in _BYTES_A_PIXEL:
        pixels = content.images["width"] * content.images["height"]
        return int(pixels.astype("float64").sum() * _BYTES_A_PIXEL[mode])
    if mode != "copy":
        return 0
    paths = (content.dataset.image_path(image_id) for image_id in content.images["image_id"])
    return sum(path.stat().st_size for path in paths if path.is_file())
