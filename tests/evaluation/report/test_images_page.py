"""The page of all test images: what its table says, how many thumbnails, and its filters."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.report.images_page import THUMBNAIL_SIDE
from tests.evaluation.report.written_images import write_images


@pytest.fixture
def page_data(comparison, image_set, report_folder):
    return write_images(comparison, image_set, report_folder, drawn={"p03": ["", "only-2-01"]})


def test_every_image_is_listed_with_its_decisions(page_data, comparison):
    assert page_data["ids"] == sorted(comparison.decisions["image_id"].unique())
    for system in page_data["systems"]:
        rows = comparison.decisions.query(f"system == '{system['name']}'").set_index("image_id")
        for bit, policy in enumerate(page_data["policies"]):
            called = [bool(each >> bit & 1) for each in system["called"]]
            assert called == rows[f"decision_{policy}"].reindex(page_data["ids"]).tolist()
        assert system["score"] == rows["score"].reindex(page_data["ids"]).tolist()
    place = page_data["ids"].index("p05")
    assert [system["placed"][place] for system in page_data["systems"]] == [0, 1]
    assert page_data["drawn"] == {str(page_data["ids"].index("p03")): ["", "only-2-01"]}


def test_a_point_within_a_map_cell_of_the_lesion_is_marked(comparison, image_set, report_folder):
    decisions = comparison.decisions
    near = decisions["localised"].where(decisions["image_id"] != "p05", True)
    page_data = write_images(
        replace(comparison, decisions=decisions.assign(localised_tolerant=near)),
        image_set,
        report_folder,
    )
    first, second = (system["placed"] for system in page_data["systems"])
    assert (first[page_data["ids"].index("p05")], second[page_data["ids"].index("p06")]) == (2, 0)
    assert first[page_data["ids"].index("p01")] == 1


def test_boxes_stand_in_pixels_of_the_original_the_best_first(page_data):
    place = str(page_data["ids"].index("p01"))
    assert page_data["truth"][place] == [16, 20, 32, 40]
    assert page_data["systems"][0]["boxes"][place] == [16, 20, 32, 40, 0.9, 1, 1, 9, 9, 0.04]
    assert page_data["size"][place] == [64, 64]
    assert str(page_data["ids"].index("n01")) not in page_data["truth"]


def test_groups_are_those_that_the_images_differ_in(page_data):
    (group,) = page_data["groups"]  # view, sex and age are one and the same in this set
    names = [group["names"][of] for of in group["of"]]
    assert group["title"] == "Class"
    assert names[page_data["ids"].index("n04")] == "not_normal"


def test_thumbnails_are_small_files_that_keep_the_aspect(comparison, image_set, report_folder):
    image_set.read_original = lambda image_id: np.full((300, 600), 90, np.uint8)
    write_images(comparison, image_set, report_folder)
    files = sorted((report_folder / "thumbs").iterdir())
    assert [path.name for path in files] == [f"{place:05d}.webp" for place in range(12)]
    with Image.open(files[0]) as small:
        assert small.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2)
    assert all(path.stat().st_size < 4000 for path in files)


def test_fewer_thumbnails_go_to_the_wrongly_decided_images(comparison, image_set, report_folder):
    page_data = write_images(comparison, image_set, report_folder, most=7)
    shown = {page_data["ids"][int(place)] for place in page_data["size"]}
    assert shown == {"p02", "p03", "p04", "p05", "p06", "n03", "n04"}  # missed, misplaced, alarms
    assert len(page_data["ids"]) == 12
    again = write_images(comparison, image_set, report_folder, most=2)
    assert len(again["size"]) == len(list((report_folder / "thumbs").iterdir())) == 2  # none stale


def test_file_that_has_gone_has_no_thumbnail(comparison, image_set, report_folder):
    def read(image_id):
        if image_id == "p04":
            raise InputError("gone")
        return np.zeros((32, 32), np.uint8)

    image_set.read_original = read
    page_data = write_images(comparison, image_set, report_folder)
    assert set(map(int, page_data["size"])) == set(range(12)) - {page_data["ids"].index("p04")}


def test_unknown_truth_and_missing_decisions_are_no_decisions(comparison, image_set, report_folder):
    decisions = comparison.decisions.copy()
    decisions.loc[decisions["image_id"] == "p01", "label"] = np.nan
    decisions.loc[decisions["system"] == "CheXNet", "decision_max_f1"] = pd.NA
    comparison.systems["CheXNet"].thresholds["max_f1"] = None
    page_data = write_images(replace(comparison, decisions=decisions), image_set, report_folder)
    assert page_data["label"][page_data["ids"].index("p01")] is None
    assert [system["decided"] for system in page_data["systems"]] == [[0, 1, 2], [1, 2]]


ACT = """
const say = (name, value) => { document.body.dataset[name] = value; };
const text = (query) => document.querySelector(query).textContent;
const shown = () => [...document.querySelectorAll(".thumb .id")].map((each) => each.textContent);
const form = document.querySelector("#choose");
const choose = (choice) => {
  location.replace("#" + new URLSearchParams(choice));
  dispatchEvent(new HashChangeEvent("hashchange"));
  return shown().join(" ");
};
const press = (key) => {
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
};
say("all", shown().length);
say("right", choose({ kind: "right" }));
say("only", choose({ kind: "only-1" }));
say("differ", choose({ kind: "disagree" }));
say("misplaced", choose({ kind: "misplaced" }));
say("missed", choose({ kind: "missed" }));
say("alarm", choose({ kind: "alarm" }));
say("cell", choose({ policy: "max_f1", s0: "fn" }));
say("group", choose({ "g-x_class": 1, s1: "fp" }));
say("sorted", choose({ s0: "tp", sort: "low-1" }));
say("explored", choose({ s0: "tp", explore: "0,8,0.9" }));
say("search", choose({ id: "P05" }));
press("j");
say("name", document.activeElement.textContent);
document.activeElement.click();
say("open", text("#one-id") + " " + document.querySelectorAll("#one figure > svg").length);
say("boxes", [...document.querySelectorAll("#one text")].map((each) => each.textContent).join(" "));
"""


def test_filters_search_order_and_keys(browser, comparison, image_set, tmp_path):
    write_images(comparison, image_set, tmp_path / "report")
    page = tmp_path / "report" / "images.html"
    page.write_text(page.read_text().replace("</body>", f"<script>{ACT}</script></body>"))
    after = browser.text_of(page.as_uri())
    page_data = dict(re.findall(r'data-([a-z]+)="(.*?)"', re.search(r"<body[^>]*>", after)[0]))
    assert page_data == {
        "all": "12",
        "right": "n01 n02 n05 n06 p01",
        "only": "p03",
        "differ": "n03 n04 p02 p03",
        "misplaced": "p05 p06",
        "missed": "p04",
        "alarm": "n03 n04",
        "cell": "p03 p04",
        "group": "",  # no normal image is called by CheXNet
        "sorted": "p02 p06 p05 p01",
        "explored": "p01",  # only the highest score of RetinaNet is still called
        "search": "p05",
        "name": "p05, positive; RetinaNet: wrong place; CheXNet: found, on the lesion",
        "open": "p05 3",
        "boxes": "0.80 0.04",
    }
