"""Label files for other programs: what is written reads back, and what is lost is said."""

import contextlib
import io
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torchvision
import yaml
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.export.content import file_stems
from cxr_compare.data_prep.export.export import export_annotations
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables
from cxr_compare.data_prep.store.dataset_info import SplitInfo, SplitOrigin
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.coco import COCO as COCO_FORMAT
from cxr_compare.data_prep.sources.registry import read_source
from tests.plain_info import data_set_info
from tests.stored_json import bind_tables, put_table

EDGES = ["x1", "y1", "x2", "y2"]
KEY = ["image_id", "finding", "reader"]
TARGETS = {"any": Target("any", ("mass", "nodule"), "Any lesion")}

Labels = dict[tuple[str, str, str], tuple[str | None, str | None, list[list[float]]]]


def make_set(
    folder: Path,
    labels: Labels,
    *,
    images: dict[str, dict[str, Any]],
    roles: dict[str, str] | None = None,
    with_files: bool = True,
) -> DataSet:
    """Write a data set of images of 100 x 80 px, whose columns may differ from the defaults."""
    source = folder / "source"
    rows = []
    for number, (image_id, known) in enumerate(images.items()):
        path = f"p{number}.png"
        source.mkdir(parents=True, exist_ok=True)
        Image.new("L", (100, 80)).save(source / path)
        rows.append(
            {
                "image_id": image_id,
                "patient_id": f"t:{number}",
                "source": "t",
                "patient_id_source": "given",
                "path": path if with_files else None,
                "file_sha256": file_digest(source / path, "sha256"),
                "height": 80,
                "width": 100,
                "study_id": None,
                "view": None,
                "sex": None,
                "age_years": None,
                **known,
            }
        )
    frame = pd.DataFrame(rows)
    findings = []
    boxes = []
    coverage = []
    for key, (state, covered, drawn) in labels.items():
        if state:
            findings.append((*key, state, "consensus"))
        if covered:
            coverage.append((*key, covered))
        boxes += [(*key, *box) for box in drawn]
    tables = {
        "images": frame,
        "findings": pd.DataFrame(findings, columns=[*KEY, "state", "origin"], dtype=TEXT),
        "boxes": pd.DataFrame(boxes, columns=[*KEY, *EDGES]) if boxes else empty_table("boxes"),
        "box_coverage": pd.DataFrame(coverage, columns=[*KEY, "coverage"], dtype=TEXT),
    }
    for name, table in tables.items():
        put_table(table, folder / f"{name}.parquet", name)
    split_ids = {}
    if roles:
        (folder / "splits").mkdir()
        split = pd.DataFrame({"image_id": list(roles), "role": list(roles.values()), "fold": 0})
        put_table(split, folder / "splits" / "default.parquet", "split")
        split_ids = {"default": "x"}
        how = SplitOrigin(method="by hand")
        record = SplitInfo(name="default", split_id="x", how=how, n_images={}, files={})
        record.write(folder / "splits" / "default.json")
    ids = DataSet.digests(frame, tables["findings"], tables["boxes"], tables["box_coverage"])
    info = data_set_info(
        name="tiny",
        source_root=str(source),
        targets=TARGETS,
        ids=ids.with_values(split_ids=split_ids),
    )
    info.write(folder / "dataset.json")
    bind_tables(folder)
    return DataSet.open(folder)


BOX = [10.0, 20.0, 40.5, 60.0]
LABELS: Labels = {
    ("a", "mass", "reference"): ("present", "all", [BOX, [0.0, 0.0, 100.0, 80.0]]),
    ("a", "nodule", "reference"): ("absent", "all", []),
    ("b", "mass", "reference"): ("absent", "all", []),
    ("b", "nodule", "reference"): ("absent", None, []),
    ("c", "mass", "reference"): ("uncertain", None, []),
    ("c", "nodule", "reference"): ("present", "some", [BOX]),
    ("d", "mass", "reference"): ("absent", None, []),
    ("a", "mass", "R1"): ("absent", None, []),
    ("b", "mass", "R1"): ("present", "all", [BOX]),
}
IMAGES = {
    "a": {
        "patient_id": "nih:0001",
        "patient_id_source": "mapped_unverified",
        "sex": "F",
        "age_years": 51.5,
        "view": "PA",
        "study_id": "s1",
        "x_ward": "north",
        "x_score": 0.25,
    },
    "b": {"patient_id": "nih:0001", "x_ward": "south", "x_score": 3.0},
    "c": {"source": "other"},
    "d": {"patient_id_source": "assumed_image"},
}
ROLES = {"a": "train", "b": "val", "c": "test", "d": "test"}


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    return make_set(tmp_path / "set", LABELS, images=IMAGES, roles=ROLES)


def read(out: Path, format: str) -> SourceTables:  # noqa: A002
    return read_source(out, format, ReadOptions())


def labels_of(tables: SourceTables) -> tuple[dict, dict, list]:
    states = {tuple(row[:3]): row[3] for row in tables.findings[[*KEY, "state"]].to_numpy()}
    covered = {tuple(row[:3]): row[3] for row in tables.box_coverage[[*KEY, "coverage"]].to_numpy()}
    boxes = sorted(tables.boxes[[*KEY, *EDGES]].to_numpy().tolist())
    return states, covered, boxes


def expected(labels: Labels) -> tuple[dict, dict, list]:
    states = {key: state for key, (state, _, _) in labels.items() if state}
    covered = {key: coverage for key, (_, coverage, _) in labels.items() if coverage}
    boxes = sorted([*key, *box] for key, (_, _, drawn) in labels.items() for box in drawn)
    return states, covered, boxes


def assert_same_labels(found: tuple[dict, dict, list], wanted: tuple[dict, dict, list]) -> None:
    assert found[0] == wanted[0]
    assert found[1] == wanted[1]
    assert [box[:3] for box in found[2]] == [box[:3] for box in wanted[2]]
    edges = [[box[3:] for box in boxes] for boxes in (found[2], wanted[2])]
    np.testing.assert_allclose(*(np.array(e, dtype=float).reshape(-1, 4) for e in edges), atol=1e-6)


# Of `LABELS`: images on which the reference knows the state of each finding and boxed each lesion.
CERTAIN = {k: v for k, v in LABELS.items() if k[0] in "ab" and k[2] == "reference"}


def test_coco_keeps_boxes_and_findings_that_are_certain(dataset, tmp_path):
    summary = export_annotations(dataset, tmp_path / "out", "coco", images="png")
    tables = read(tmp_path / "out", "coco")
    states, _, boxes = labels_of(tables)
    assert_same_labels((states, {}, boxes), (expected(CERTAIN)[0], {}, expected(CERTAIN)[2]))
    assert sorted(tables.images["image_id"]) == ["a", "b", "c", "d"]
    assert (tables.images[["height", "width"]].to_numpy() == (80, 100)).all()
    assert (summary.n_images, summary.n_boxes) == (4, 2)  # the box of c is not written
    said = "\n".join(summary.not_exported)
    assert "image_info_unlabelled.json" in said
    assert "1 uncertain" in said
    assert "1 unknown" in said
    assert "1 not fully boxed" in said
    assert "3 patients are not exported" in said
    assert "source, study_id, view, sex, age_years, x_ward, x_score" in said
    assert "not exported: R1" in said
    assert "--target any=mass,nodule" in said


def test_coco_never_makes_an_unknown_or_uncertain_finding_a_negative(dataset, tmp_path):
    """Programs take an image without annotation in an instances file for a negative."""
    export_annotations(dataset, tmp_path / "out", "coco", images="png")
    folder = tmp_path / "out" / "annotations"
    instances = json.loads((folder / "instances.json").read_text())
    assert [image["file_name"] for image in instances["images"]] == ["a.png", "b.png"]
    unlabelled = json.loads((folder / "image_info_unlabelled.json").read_text())
    assert [image["file_name"] for image in unlabelled["images"]] == ["c.png", "d.png"]
    assert unlabelled["annotations"] == []
    tables = read(tmp_path / "out", "coco")
    assert not {"c", "d"} & set(tables.findings["image_id"])
    assert dict(zip(tables.split["image_id"], tables.split["role"], strict=True)) == {
        "c": "unused",
        "d": "unused",
    }


def test_coco_holds_no_key_of_its_own(dataset, tmp_path):
    export_annotations(dataset, tmp_path / "out", "coco", images="png")
    written = json.loads((tmp_path / "out" / "annotations" / "instances.json").read_text())
    assert set(written) == {"info", "images", "annotations", "categories"}
    assert set(written["info"]) == {"description"}
    assert {key for image in written["images"] for key in image} == {
        "id",
        "file_name",
        "width",
        "height",
    }


def test_coco_keeps_roles_and_says_which_files_have_no_box(dataset, tmp_path):
    summary = export_annotations(dataset, tmp_path / "out", "coco", split="default", images="png")
    tables = read(tmp_path / "out", "coco")
    roles = dict(zip(tables.official["image_id"], tables.official["role"], strict=True))
    assert roles == {"a": "train", "b": "val", "c": "unused", "d": "unused"}
    # The file of b has no annotation, so that its reader cannot know that anybody looked.
    assert set(tables.findings["image_id"]) == {"a"}
    assert any("1 image is in a file without any box" in line for line in summary.not_exported)


def test_coco_refuses_a_set_without_any_certain_image(dataset, tmp_path):
    labels: Labels = {("a", "mass", "reference"): ("uncertain", None, [])}
    dataset = make_set(tmp_path / "other", labels, images={"a": {}})
    with pytest.raises(InputError, match=r"coco cannot express it: .*mass is uncertain"):
        export_annotations(dataset, tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()


def test_yolo_says_what_is_certain_and_nothing_else(dataset, tmp_path):
    summary = export_annotations(dataset, tmp_path / "out", "yolo", split="default", images="link")
    tables = read(tmp_path / "out", "yolo")
    states, _, boxes = labels_of(tables)
    assert_same_labels((states, {}, boxes), (expected(CERTAIN)[0], {}, expected(CERTAIN)[2]))
    roles = dict(zip(tables.official["image_id"], tables.official["role"], strict=True))
    assert roles == {"a": "train", "b": "val", "c": "unused", "d": "unused"}
    # Not below images/: YOLO programs would train on it as on an image without lesions.
    assert (tmp_path / "out" / "unlabelled" / "images" / "c.png").is_file()
    assert not (tmp_path / "out" / "images" / "test").exists()
    said = "\n".join(summary.not_exported)
    assert "2 images" in said


def test_a_target_narrows_what_goes_out(dataset, tmp_path):
    targets = {"m": Target("m", ("mass",), "Mass")}
    dataset = DataSet(dataset.folder, dataset.info.with_values(targets=targets))
    export_annotations(dataset, tmp_path / "out", "yolo", target="m", images="link")
    tables = read(tmp_path / "out", "yolo")
    assert set(tables.findings["finding"]) == {"mass"}
    assert set(tables.findings["image_id"]) == {"a", "b", "d"}


def test_the_labels_of_one_reader_go_out_as_the_labels(dataset, tmp_path):
    export_annotations(dataset, tmp_path / "out", "coco", reader="R1", images="png")
    states, _, boxes = labels_of(read(tmp_path / "out", "coco"))
    assert states == {("a", "mass", "reference"): "absent", ("b", "mass", "reference"): "present"}
    assert boxes == [["b", "mass", "reference", *BOX]]


def test_pycocotools_loads_what_is_written(dataset, tmp_path):
    export_annotations(dataset, tmp_path / "out", "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(tmp_path / "out" / "annotations" / "instances.json")
    assert sorted(loaded.imgs) == [1, 2]
    (mass,) = loaded.getCatIds(catNms=["mass"])
    boxes = [loaded.anns[i]["bbox"] for i in loaded.getAnnIds(catIds=[mass])]
    assert sorted(boxes) == [[0.0, 0.0, 100.0, 80.0], [10.0, 20.0, 30.5, 40.0]]
    results = [{**loaded.anns[i], "score": 0.5} for i in loaded.getAnnIds()]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluated = COCOeval(loaded, loaded.loadRes(results), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    assert evaluated.stats[0] == 1.0


def test_a_set_without_images_goes_through_a_coco_file(tmp_path):
    dataset = make_set(tmp_path / "set", LABELS, images=IMAGES, with_files=False)
    export_annotations(dataset, tmp_path / "out", "coco")
    file = tmp_path / "out" / "annotations" / "instances.json"
    tables = COCO_FORMAT.read(file, ReadOptions(), lambda line: None)
    assert tables.images["path"].isna().all()
    states, _, boxes = labels_of(tables)
    assert_same_labels((states, {}, boxes), (expected(CERTAIN)[0], {}, expected(CERTAIN)[2]))
    with pytest.raises(InputError, match="has no image files; leave out --images link"):
        export_annotations(dataset, tmp_path / "x", "coco", images="link")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "pascal"}, "use one of coco, yolo"),
        ({"images": "some"}, "use one of none, png, link"),
        ({"split": "no"}, "has no split 'no'; it has default"),
        ({"reader": "R9"}, "has no reader 'R9'; it has R1, reference"),
        ({"target": "no"}, "has no target 'no'"),
    ],
)
def test_a_name_of_nothing_is_refused_and_leaves_nothing(dataset, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export_annotations(dataset, tmp_path / "out", **{"format": "coco", **arguments})
    assert not (tmp_path / "out").exists()


def test_the_folder_appears_whole_or_not_at_all(dataset, tmp_path):
    place = tmp_path / "place"
    (dataset.source_root / "p3.png").unlink()
    with pytest.raises(InputError, match=r"p3\.png: the image is gone"):
        export_annotations(dataset, place / "out", "coco", images="link")
    assert list(place.iterdir()) == []
    (place / "out").mkdir()
    export_annotations(dataset, place / "out", "coco")  # an empty folder is as good as none
    with pytest.raises(InputError, match="no empty folder"):
        export_annotations(dataset, place / "out", "coco")
    (place / "file").touch()
    with pytest.raises(InputError, match="no empty folder"):
        export_annotations(dataset, place / "file", "coco")
    assert sorted(path.name for path in place.iterdir()) == ["file", "out"]


def test_images_are_linked_or_left(dataset, tmp_path):
    for mode in ("none", "link"):
        export_annotations(dataset, tmp_path / mode, "coco", images=mode)
    assert not (tmp_path / "none" / "images").exists()
    assert (tmp_path / "link" / "images" / "p0.png").is_symlink()


@pytest.fixture
def scans(dataset, write_dicom) -> DataSet:
    """The data set with DICOM files of 12 bits in place of its images."""
    ramp = np.linspace(0, 4095, 8000).reshape(80, 100).astype(np.uint16)
    for number in range(4):
        write_dicom(
            dataset.source_root / f"p{number}.png",
            np.roll(ramp, 20 * number, axis=1),
            bits_stored=12,
        )
    digests = [file_digest(dataset.source_root / p, "sha256") for p in dataset.images["path"]]
    images = dataset.images.assign(file_sha256=digests)
    put_table(images, dataset.folder / "images.parquet", "images")
    return DataSet.open(dataset.folder)


@pytest.mark.parametrize(
    ("format", "images", "folder"),
    [("yolo", None, "images/train"), ("coco", "png", "images")],  # YOLO renders by itself
)
def test_rendered_images_are_what_models_see(scans, tmp_path, format, images, folder):  # noqa: A002
    export_annotations(scans, tmp_path / "out", format, split="default", images=images)
    seen = scans.read_original("a")
    shown = np.asarray(Image.open(tmp_path / "out" / folder / "a.png"))
    assert (shown.shape, shown.dtype) == ((80, 100), np.uint8)
    np.testing.assert_array_equal(shown, seen)
    assert np.ptp(seen) > 200


def test_a_broken_image_stops_all_processes_and_leaves_nothing(tmp_path):
    images = {f"i{number:02}": {} for number in range(20)}
    labels: Labels = {(name, "mass", "reference"): ("absent", "all", []) for name in images}
    dataset = make_set(tmp_path / "set", labels, images=images)
    done = []
    (dataset.source_root / "p7.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"p7\.png: is not the file that the data set was made"):
        export_annotations(
            dataset, tmp_path / "out", "coco", images="png", workers=2, advance=done.append
        )
    assert sum(done) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_another_image_than_when_prepared_is_refused(dataset, tmp_path):
    Image.new("L", (90, 80)).save(dataset.source_root / "p2.png")
    with pytest.raises(InputError, match=r"p2\.png: is not the file that the data set was made"):
        export_annotations(dataset, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


# Counted by hand in CERTAIN and ROLES: images, and the reference's boxes.
_COUNTS = {"train": (1, 2), "val": (1, 0)}


def test_torchvision_loads_as_many_images_and_boxes(scans, tmp_path, capsys):
    export_annotations(scans, tmp_path / "coco", "coco", split="default", images="png")
    for role, counts in _COUNTS.items():
        listed = tmp_path / "coco" / "annotations" / f"instances_{role}.json"
        coco = torchvision.datasets.CocoDetection(tmp_path / "coco" / "images", listed)
        boxes = [box["bbox"] for _, annotations in coco for box in annotations]
        assert (len(coco), len(boxes)) == counts
        assert {image.size for image, _ in coco} == {(100, 80)}


def test_supervision_loads_as_many_images_and_boxes(scans, tmp_path):
    import supervision

    load = supervision.DetectionDataset
    for format in ("coco", "yolo"):  # noqa: A001
        export_annotations(scans, tmp_path / format, format, split="default", images="png")
    coco = tmp_path / "coco"
    yolo = tmp_path / "yolo"
    for role, counts in _COUNTS.items():
        listed = coco / "annotations" / f"instances_{role}.json"
        loaded = [load.from_coco(str(coco / "images"), str(listed))]
        places = (yolo / "images" / role, yolo / "labels" / role, yolo / "data.yaml")
        loaded.append(load.from_yolo(*map(str, places)))
        for images in loaded:
            boxes = [len(detections) for _, _, detections in images]  # opens each image
            assert (len(images), sum(boxes)) == counts
    described = yaml.safe_load((yolo / "data.yaml").read_text())
    assert (described["train"], described["val"]) == ("images/train", "images/val")


def test_hidden_paths_are_not_shown_by_links(dataset, tmp_path):
    dataset.info = dataset.info.with_values(id_key="x")
    with pytest.raises(InputError, match="links would show the paths"):
        export_annotations(dataset, tmp_path / "out", "coco", images="link")
    export_annotations(dataset, tmp_path / "out", "coco")
    listed = json.loads((tmp_path / "out" / "annotations" / "instances.json").read_text())
    assert listed["images"][0]["file_name"] == dataset.images["path"].iloc[0]


def test_a_finding_that_no_file_can_hold_is_refused(tmp_path):
    labels: Labels = {("a", "ma\x01ss", "reference"): ("absent", None, [])}
    dataset = make_set(tmp_path / "set", labels, images={"a": {}})
    with pytest.raises(InputError, match="has characters that label files cannot hold"):
        export_annotations(dataset, tmp_path / "out", "coco")


def test_ids_become_file_names_that_differ_in_any_case():
    ids = pd.Series(["b/1", "b_1", "B_1", "", "..", "x" * 300, "ok", "-x", "é"])
    stems = file_stems(ids).tolist()
    assert len({stem.lower() for stem in stems}) == len(ids)
    assert all(stem and "/" not in stem and stem[0] != "." and len(stem) < 200 for stem in stems)
    assert (stems[1], stems[6], stems[8]) == ("b_1", "ok", "é")


_NAMES = st.lists(
    st.sampled_from(["a", "b.c", "Ünï", "x y", "d/1", "e,f", '"q"', "<&>", "0001"]),
    min_size=1,
    max_size=4,
    unique=True,
)
_LABEL = st.sampled_from(
    [
        (None, None, 0),
        ("absent", "all", 0),
        ("absent", None, 0),
        ("uncertain", None, 0),
        ("uncertain", "some", 1),
        ("present", None, 0),
        ("present", "all", 1),
        ("present", "all", 3),
        ("present", "some", 1),
    ]
)


@st.composite
def drawn_sets(draw: Any) -> tuple[list[str], Labels]:
    ids = draw(_NAMES)
    labels: Labels = {}
    for key in product(ids, ("mass", "nodule"), ("reference", "R1")):
        state, coverage, count = draw(_LABEL)
        boxes = []
        for number in range(count):
            x = draw(st.floats(0, 80))
            y = draw(st.floats(0, 60))
            width = draw(st.floats(0.01, 20 - number))
            height = draw(st.floats(0.01, 20))
            boxes.append([x, y, x + width, y + height])
        labels[key] = (state, coverage, sorted(boxes))
    labels[(ids[0], "mass", "reference")] = ("present", "all", [BOX])
    labels[(ids[0], "nodule", "reference")] = ("absent", "all", [])
    return ids, labels


@pytest.mark.parametrize("examples", [14, pytest.param(300, marks=pytest.mark.long)])
def test_whatever_is_written_reads_back(tmp_path_factory, examples):
    @settings(max_examples=examples, deadline=None)
    @given(drawn=drawn_sets(), format=st.sampled_from(["coco", "yolo"]))
    def check(drawn: tuple[list[str], Labels], format: str) -> None:  # noqa: A002
        check_round_trip(tmp_path_factory.mktemp("set"), *drawn, format)

    check()


def check_round_trip(folder: Path, ids: list[str], labels: Labels, format: str) -> None:  # noqa: A002
    dataset = make_set(folder, labels, images={image_id: {} for image_id in ids})
    export_annotations(dataset, folder / "out", format, images="png")
    tables = read(folder / "out", format)
    of_reference = {key: label for key, label in labels.items() if key[2] == "reference"}
    unsaid = {
        image_id
        for (image_id, _, _), (state, coverage, _) in of_reference.items()
        if state != "absent" and (state, coverage) != ("present", "all")
    }
    stems = dict(zip(ids, file_stems(pd.Series(ids)), strict=True))
    kept = {(stems[k[0]], *k[1:]): v for k, v in of_reference.items() if k[0] not in unsaid}
    states, _, boxes = labels_of(tables)
    known, _, drawn = expected(kept)
    assert sorted(tables.images["image_id"]) == sorted(stems.values())
    assert_same_labels((states, {}, boxes), (known, {}, drawn))
