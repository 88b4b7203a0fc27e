"""Label files of the four formats with boxes, of the plain records of one meaning."""

import json
from pathlib import PurePosixPath
from xml.sax.saxutils import escape

import numpy as np
import pytest

from tests.cases import CONFORMANCE

IMAGE_SIZE = (100, 80)


def labels_in(entries):
    """The labels of all marks, each once."""
    return list(dict.fromkeys(label for entry in entries for label, _ in entry["marks"]))


def size_of(entry):
    """Width and height that the label file states."""
    return entry.get("size", IMAGE_SIZE)


def plain(numbers):
    """Numbers as JSON writes them; null is missing."""
    return [None if np.isnan(number) else round(float(number), 6) for number in numbers]


def edges(box):
    return np.array(box, np.float64)


def corner_and_sides(box):
    low, high = edges(box)[:2], edges(box)[2:]
    return np.concatenate([low, high - low])


def centre_and_sides(box):
    low, high = edges(box)[:2], edges(box)[2:]
    return np.concatenate([(low + high) / 2, high - low])


def file_beside(entry, suffix):
    """Path of the label file of one image."""
    return entry.get("file", str(PurePosixPath(entry["image"]).with_suffix(""))) + suffix


def coco(entries):
    labels = labels_in(entries)
    images, annotations = [], []
    for number, entry in enumerate(entries, start=1):
        width, height = size_of(entry)
        image = {"id": number, "file_name": entry["image"], "width": width, "height": height}
        images.append(image | ({"patient_id": entry["patient"]} if "patient" in entry else {}))
        for label, box in entry["marks"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels.index(label) + 1,
                    "bbox": plain(corner_and_sides(box)),
                }
            )
    categories = [{"id": n, "name": label} for n, label in enumerate(labels, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return {"labels.json": json.dumps(content)}


def yolo(entries):
    labels = labels_in(entries)
    files = {"data.yaml": f"names: {json.dumps(labels)}\n"}
    for entry in entries:
        lines = []
        for label, box in entry["marks"]:
            shares = plain(centre_and_sides(box) / np.tile(size_of(entry), 2))
            values = ["x" if share is None else str(share) for share in shares]
            lines.append(" ".join([str(labels.index(label)), *values]))
        files[file_beside(entry, ".txt")] = "\n".join(lines)
    return files


def voc(entries):
    files = {}
    for entry in entries:
        width, height = size_of(entry)
        text = f"<filename>{PurePosixPath(entry['image']).name}</filename>"
        text += f"<size><width>{width}</width><height>{height}</height></size>"
        for label, box in entry["marks"]:
            named = zip(("xmin", "ymin", "xmax", "ymax"), plain(edges(box)), strict=True)
            bndbox = "".join(f"<{name}>{value}</{name}>" for name, value in named)
            text += f"<object><name>{escape(label)}</name><bndbox>{bndbox}</bndbox></object>"
        files[file_beside(entry, ".xml")] = f"<annotation>{text}</annotation>"
    return files


def labelme(entries):
    files = {}
    for entry in entries:
        width, height = size_of(entry)
        shapes = []
        for label, box in entry["marks"]:
            x1, y1, x2, y2 = plain(edges(box))
            points = [[x1, y1], [x2, y2]]
            shapes.append({"label": label, "points": points, "shape_type": "rectangle"})
        content = {
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(entry["image"]).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        files[file_beside(entry, ".json")] = json.dumps(content)
    return files


WRITERS = {"coco": coco, "yolo": yolo, "voc": voc, "labelme": labelme}


def written_as(meaning, name):
    """The case of a meaning in a format: ``{labels}`` is its label file."""
    made = WRITERS[name](meaning["marked"])
    text = json.dumps(meaning).replace("{labels}", next(iter(made)))
    root = PurePosixPath(meaning.get("root", "."))
    files = {str(root / path): content for path, content in made.items()}
    case = json.loads(text)
    return {**case, "format": name, "files": {**case["files"], **files}}


def meanings():
    """Each meaning of `conformance/inputs/meanings.json` in each format that can write it.

    The ordinary suite has one format of each: the one that it has least often by then.
    """
    path = CONFORMANCE / "inputs/meanings.json"
    times = dict.fromkeys(WRITERS, 0)
    for meaning in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        able = [name for name in WRITERS if name not in meaning.get("cannot", ())]
        drawn = min(able, key=times.__getitem__)
        times[drawn] += 1
        for name in able:
            marks = () if name == drawn else pytest.mark.release
            case = written_as(meaning, name)
            yield pytest.param(case, id=f"{name}: {meaning['name']}", marks=marks)
