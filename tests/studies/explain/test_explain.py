"""`cxr explain`: rules of another program's figure, from files."""

import json

import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from tests.plain_sets import prepare_plain
from tests.scripts.small_sets import write_source

CROWD = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 50, 50], "iscrowd": 1}
TRUTH = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 100, "height": 80},
        {"id": 2, "file_name": "b.png", "width": 100, "height": 80},
    ],
    "categories": [{"id": 1, "name": "opacity"}],
    "annotations": [
        {**CROWD, "id": 1},
        {**CROWD, "id": 2, "image_id": 1, "bbox": [0, 0, 40, 40], "iscrowd": 0},
    ],
}
RESULTS = [
    {"image_id": 2, "category_id": 1, "bbox": [0, 0, 50, 40], "score": 0.9},  # on the crowd
    {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.0005},
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    return tmp_path


def assert_explained(outcome):
    """The box on the crowd does not count, and the other does, however low its score."""
    answer = outcome.to_dict()
    assert answer["best"]["value"] == pytest.approx(1)
    assert (answer["best"]["changes"], answer["cxr"]["value"]) == ([], 0)
    assert answer["text"] == str(outcome)


def test_boxes_and_a_data_set_explain_a_figure(files):
    states, roles = {"opacity": ["present", "absent"] * 2}, ["test", "test", "val", "train"]
    sides = {"width": 100, "height": 80}
    source = write_source(files / "source", list("abcd"), states, split=roles, **sides)
    boxes = "image_id,x1,y1,x2,y2,finding\na,0,0,40,40,opacity\nc,0,0,9,9,opacity\n"
    (source / "boxes.csv").write_text(boxes)
    prepare_plain(source, files / "data")
    options = {"data": files / "data", "coco_truth": files / "truth.json"}
    assert_explained(cxr_compare.explain(files / "results.json", figure="1.0", **options))
    (files / "scores.csv").write_text("image_id,score\na,0.5\n")
    with pytest.raises(InputError, match=r"scores.csv: "):
        cxr_compare.explain(files / "scores.csv", figure=["1.0"], **options)


def test_boxes_and_an_annotation_file_explain_a_figure(files):
    truth = files / "truth.json"
    assert_explained(cxr_compare.explain(files / "results.json", figure=["1.0"], truth=truth))
    with pytest.raises(InputError, match="figure="):
        cxr_compare.explain(files / "results.json", figure=["1.2"], truth=truth)
    with pytest.raises(InputError, match="data="):
        cxr_compare.explain(files / "results.json", figure=["1.0"])


def test_boxes_that_would_match_in_another_reading_are_named_beside_the_protocol(files):
    corners = [(5 * n, 2 * n, 5 * n + 20, 2 * n + 10) for n in range(8)]
    lists = {"images": [], "categories": TRUTH["categories"], "annotations": []}
    rows = []
    for n, (x1, y1, x2, y2) in enumerate(corners, start=1):
        lists["images"].append({"id": n, "file_name": f"i{n}x.png", "width": 100, "height": 100})
        box = {"image_id": n, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        lists["annotations"].append({**box, "id": n, "iscrowd": 0})
        rows.append({**box, "bbox": [y1, x1, y2 - y1, x2 - x1], "score": 0.9})
    (files / "truth.json").write_text(json.dumps(lists))
    (files / "results.json").write_text(json.dumps(rows))
    outcome = cxr_compare.explain(
        files / "results.json", figure="0.1", truth=files / "truth.json"
    ).to_dict()
    (reading, *_) = outcome["other_readings"]
    assert reading["name"] == "as y, x, y, x"
    assert reading["ap50"] == pytest.approx(1)
    assert 'order="yxyx"' in outcome["text"]
    right = cxr_compare.explain(files / "results.json", figure="1.0", truth=files / "truth.json")
    assert right.to_dict()["cxr"]["value"] == outcome["cxr"]["value"] < 0.2  # figures stay
