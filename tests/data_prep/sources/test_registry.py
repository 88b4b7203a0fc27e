"""Help, README, docs and detection follow from the registry of formats."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import ReadOptions

from cxr_compare.data_prep.sources.registry import (
    FORMATS,
    likely_format,
    read_source,
)
from cxr_compare.scripts.commands.prepare import prepare
from tests.data_prep.sources.answers import write_files

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = [field.name for field in fields(ReadOptions)]


def test_help_names_every_format():
    text = " ".join(prepare.__doc__.partition("format: ")[2].split())
    names = text.partition(": ")[2].partition(".")[0].replace(" or ", ", ").split(",")
    assert {name.strip() for name in names} == set(FORMATS), names


@pytest.mark.parametrize("option", OPTIONS)
def test_refusal_of_an_option_names_the_formats_that_take_it(tmp_path, option):
    with pytest.raises(InputError, match=rf"{option.replace('_', '.')}: .*format rsna") as refused:
        read_source(tmp_path, "rsna", ReadOptions(**{option: ("given",)}))
    named = str(refused.value).partition("formats that take it: ")[2]
    assert named.split(", ") == [name for name, f in FORMATS.items() if option in f.options]


def test_docs_have_a_section_on_every_format():
    page = (ROOT / "docs" / "formats.md").read_text()
    assert all(f"\n## {name}\n" in page for name in FORMATS)


def test_first_page_names_every_format():
    text = " ".join((ROOT / "docs" / "index.md").read_text().split())
    assert f"`--format`: {', '.join(f'`{name}`' for name in FORMATS)}" in text


def test_records_are_complete_and_their_options_exist():
    for name, known in FORMATS.items():
        assert known.name == name
        assert known.title, name
        assert known.folder, name
        assert set(known.options) <= set(OPTIONS), name
        assert not any("://" in address for address in known.sources), name


def test_empty_and_missing_folders_are_refused_by_every_format(tmp_path):
    for name in FORMATS:
        with pytest.raises(InputError, match="is empty"):
            read_source(tmp_path, name, ReadOptions())
        with pytest.raises(InputError, match="no such folder"):
            read_source(tmp_path / "none", name, ReadOptions())
    assert likely_format(tmp_path) is None


LABELME = json.dumps({"shapes": [], "imagePath": "a.png", "imageData": None})
VIA = json.dumps({"a.png7": {"filename": "a.png", "regions": [], "file_attributes": {}}})
COCO = json.dumps({"images": [], "annotations": [], "categories": []})
LABEL_STUDIO = json.dumps([{"data": {"image": "a.png"}, "annotations": [{"result": []}]}])
SUPERVISELY = json.dumps({"size": {}, "objects": [{"classTitle": "x", "geometryType": "point"}]})
BOX = '{"label": "x", "points": [[1, 2], [30, 40]], "shape_type": "rectangle"}'


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"a.json": LABELME}, "labelme"),
        ({"project.json": VIA}, "via"),
        ({"anything.json": COCO}, "coco"),
        ({"anything.json": LABEL_STUDIO}, "label-studio"),
        ({"a.json": SUPERVISELY}, None),
        ({"notes.json": '{"made by": "me"}'}, None),
        ({"a.xml": "<annotation></annotation>"}, "voc"),
        ({"scanner.xml": "<settings></settings>"}, None),
        ({"images/a.png": "", "texts/readme.txt": "made by hand"}, None),
    ],
)
def test_a_folder_is_opened_before_its_format_is_named(tmp_path, files, name):
    assert likely_format(write_files(tmp_path, {"a.png": "", **files})) == name


def test_a_sure_guess_is_taken_and_said(tmp_path):
    lines = []
    files = {"a.json": LABELME.replace("[]", f"[{BOX}]"), "a.png": ""}
    tables = read_source(write_files(tmp_path, files), None, ReadOptions(), lines.append)
    assert tables.format == "labelme"
    assert tables.boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[1, 2, 30, 40]]
    assert [line for line in lines if "--format labelme" in line]


def test_where_two_formats_fit_both_are_named(tmp_path):
    folder = write_files(tmp_path, {"a.json": LABELME, "c.json": COCO, "a.png": ""})
    with pytest.raises(InputError, match="--format labelme or --format coco"):
        read_source(folder, None, ReadOptions())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.json", '[{"file": "a.png", "syms": ["Mass"]}]'),
        ("ann/a.png.json", SUPERVISELY),
        ("labels/all.json", '{"a.png": {"finding": "Mass"}}'),
        ("boxes.jsonl", '{"image": "a.png"}'),
        ("tool.xml", "<dataset/>"),
        ("results.pkl", ""),
    ],
)
def test_a_label_file_that_is_not_understood_is_named(tmp_path, name, content):
    folder = write_files(tmp_path, {name: content, "images/a.png": ""})
    with pytest.raises(InputError, match=name) as refused:
        read_source(folder, None, ReadOptions())
    assert "no table of labels" not in str(refused.value)


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """The package of CONTRIBUTING.md with a format of its own, as pip would install it."""
    blocks = (ROOT / "CONTRIBUTING.md").read_text().split("```python\n")[1:]
    code = next(b for b in blocks if "FORMAT = Format(" in b).partition("```")[0]
    files = {
        "object_cxr.py": code,
        "object_cxr-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.1\nName: object-cxr\nVersion: 1.0\n"
        ),
        "object_cxr-1.0.dist-info/entry_points.txt": (
            "[cxr_compare.formats]\nobject-cxr = object_cxr:FORMAT\n"
        ),
    }
    monkeypatch.syspath_prepend(write_files(tmp_path / "site", files))


@pytest.mark.usefixtures("own_package")
def test_a_format_of_another_package_is_recognised_and_read(tmp_path):
    rows = ["image_name,annotation", "a.png,0 1 2 30 40;0 5 5 20 20", "b.png,", "c.png,0 1 2"]
    rows += [f"d{n}.png,0 1 2 30 40" for n in range(20)]
    images = dict.fromkeys((row.partition(",")[0] for row in rows[1:]), "")
    files = {"labels.csv": "\n".join(rows), **images}
    lines = []
    tables = read_source(write_files(tmp_path / "set", files), None, ReadOptions(), lines.append)
    assert tables.format == "object-cxr"
    assert any("--format object-cxr" in line for line in lines)
    states = tables.findings.set_index("image_id")["state"]
    assert (states["a"], states["b"]) == ("present", "absent")
    assert "c" not in states.index
    assert (tables.boxes["image_id"] == "a").sum() == 2


@pytest.mark.usefixtures("own_package")
def test_a_format_of_another_package_cannot_take_a_name(tmp_path):
    points = tmp_path / "site" / "object_cxr-1.0.dist-info" / "entry_points.txt"
    points.write_text("[cxr_compare.formats]\nx = cxr_compare.data_prep.sources.coco:COCO\n")
    with pytest.raises(InputError, match=r"object-cxr.*coco"):
        read_source(tmp_path, None, ReadOptions())
    points.write_text("[cxr_compare.formats]\nx = object_cxr:read\n")
    with pytest.raises(InputError, match=r"object-cxr.*no Format"):
        read_source(tmp_path, None, ReadOptions())
