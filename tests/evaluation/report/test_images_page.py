"""The page of all test images: what its table says, how many thumbnails, and its filters."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.image_metrics import confusion_counts
from cxr_compare.evaluation.report.images_page import THUMBNAIL_SIDE, write_images_page
from cxr_compare.evaluation.report.threshold_exploration import explore_thresholds

TITLES = {"title": "A and B", "finding": "Lung opacity", "data_name": "hand-made"}


def write(comparison, image_set, out, **options):
    rest = {"titles": TITLES, "drawn": {}, "gaps": {}, **options}
    out.mkdir(exist_ok=True)
    write_images_page(comparison, image_set, out, **rest)
    text = (out / "images.js").read_text()
    return json.loads(text.removeprefix("const IMAGES = ").removesuffix(";\n"))


@pytest.fixture
def told(comparison, image_set, report_folder):
    return write(comparison, image_set, report_folder, drawn={"p03": ["", "only-2-01"]})


def test_every_image_is_listed_with_its_decisions(told, comparison):
    assert told["ids"] == sorted(comparison.decisions["image_id"].unique())
    for system in told["systems"]:
        rows = comparison.decisions.query(f"system == '{system['name']}'").set_index("image_id")
        for bit, policy in enumerate(told["policies"]):
            called = [bool(each >> bit & 1) for each in system["called"]]
            assert called == rows[f"decision_{policy}"].reindex(told["ids"]).tolist()
        assert system["score"] == rows["score"].reindex(told["ids"]).tolist()
    place = told["ids"].index("p05")
    assert [system["placed"][place] for system in told["systems"]] == [0, 1]
    assert told["drawn"] == {str(told["ids"].index("p03")): ["", "only-2-01"]}


def test_a_point_within_a_map_cell_of_the_lesion_is_marked(comparison, image_set, report_folder):
    decisions = comparison.decisions
    near = decisions["localised"].where(decisions["image_id"] != "p05", True)
    told = write(
        replace(comparison, decisions=decisions.assign(localised_tolerant=near)),
        image_set,
        report_folder,
    )
    first, second = (system["placed"] for system in told["systems"])
    assert (first[told["ids"].index("p05")], second[told["ids"].index("p06")]) == (2, 0)
    assert first[told["ids"].index("p01")] == 1


def test_boxes_stand_in_pixels_of_the_original_the_best_first(told):
    place = str(told["ids"].index("p01"))
    assert told["truth"][place] == [16, 20, 32, 40]
    assert told["systems"][0]["boxes"][place] == [16, 20, 32, 40, 0.9, 1, 1, 9, 9, 0.04]
    assert told["size"][place] == [64, 64]
    assert str(told["ids"].index("n01")) not in told["truth"]


def test_groups_are_those_that_the_images_differ_in(told):
    (group,) = told["groups"]  # view, sex and age are one and the same in this set
    names = [group["names"][of] for of in group["of"]]
    assert group["title"] == "Class"
    assert names[told["ids"].index("n04")] == "not_normal"


def test_thumbnails_are_small_files_that_keep_the_aspect(comparison, image_set, report_folder):
    image_set.read_original = lambda image_id: np.full((300, 600), 90, np.uint8)
    write(comparison, image_set, report_folder)
    files = sorted((report_folder / "thumbs").iterdir())
    assert [path.name for path in files] == [f"{place:05d}.webp" for place in range(12)]
    with Image.open(files[0]) as small:
        assert small.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2)
    assert all(path.stat().st_size < 4000 for path in files)


def test_fewer_thumbnails_go_to_the_wrongly_judged_images(comparison, image_set, report_folder):
    told = write(comparison, image_set, report_folder, most=7)
    shown = {told["ids"][int(place)] for place in told["size"]}
    assert shown == {"p02", "p03", "p04", "p05", "p06", "n03", "n04"}  # missed, misplaced, alarms
    assert len(told["ids"]) == 12
    again = write(comparison, image_set, report_folder, most=2)
    assert len(again["size"]) == len(list((report_folder / "thumbs").iterdir())) == 2  # none stale


def test_file_that_has_gone_has_no_thumbnail(comparison, image_set, report_folder):
    def read(image_id):
        if image_id == "p04":
            raise InputError("gone")
        return np.zeros((32, 32), np.uint8)

    image_set.read_original = read
    told = write(comparison, image_set, report_folder)
    assert set(map(int, told["size"])) == set(range(12)) - {told["ids"].index("p04")}


def test_unknown_truth_and_missing_decisions_are_no_decisions(comparison, image_set, report_folder):
    decisions = comparison.decisions.copy()
    decisions.loc[decisions["image_id"] == "p01", "label"] = np.nan
    decisions.loc[decisions["system"] == "CheXNet", "decision_max_f1"] = pd.NA
    comparison.systems["CheXNet"].thresholds["max_f1"] = None
    told = write(replace(comparison, decisions=decisions), image_set, report_folder)
    assert told["label"][told["ids"].index("p01")] is None
    assert [system["decided"] for system in told["systems"]] == [[0, 1, 2], [1, 2]]


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
    write(comparison, image_set, tmp_path / "report")
    page = tmp_path / "report" / "images.html"
    page.write_text(page.read_text().replace("</body>", f"<script>{ACT}</script></body>"))
    after = browser.text_of(page.as_uri())
    told = dict(re.findall(r'data-([a-z]+)="(.*?)"', re.search(r"<body[^>]*>", after)[0]))
    assert told == {
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


def frame(n: int, seed: int = 0, systems=("A", "B")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    parts = [
        pd.DataFrame(
            {
                "image_id": [f"i{k:05d}" for k in range(n)],
                "system": name,
                "label": label * 1.0,
                "score": np.round(rng.random(n) * 0.7 + 0.3 * label, 2 + position),
            }
        )
        for position, name in enumerate(systems)
    ]
    return pd.concat(parts, ignore_index=True)


def counts(told, system: int, step: int) -> dict[str, int]:
    steps = told["steps"][system]
    tp = steps["tp"][step]
    fp = steps["fp"][step]
    return {"tp": tp, "fp": fp, "tn": told["negatives"] - fp, "fn": told["positives"] - tp}


@pytest.mark.parametrize(
    "threshold", [0.31, 0.5, 0.505, 2.0], ids=["tie", "tie2", "between", "none"]
)
def test_frozen_threshold_gives_the_counts_of_the_tables(threshold):
    table = frame(300)
    told, _ = explore_thresholds(table, ["A", "B"], {"A": {"max_f1": threshold}, "B": {}})
    mine = table[table["system"] == "A"]
    wanted = confusion_counts(mine["label"] == 1, mine["score"], threshold)
    assert counts(told, 0, told["steps"][0]["frozen"]["max_f1"]) == wanted
    assert told["steps"][1]["frozen"] == {}


def test_every_step_counts_what_lies_at_or_above_it():
    table = frame(200)
    told, _ = explore_thresholds(table, ["A"], {})
    mine = table[table["system"] == "A"]
    for step, at in enumerate(told["steps"][0]["at"]):
        wanted = confusion_counts(mine["label"] == 1, mine["score"], at)
        assert counts(told, 0, step) == wanted


def test_places_of_the_images_give_the_same_counts_as_the_steps():
    table = frame(150)
    told, places = explore_thresholds(table, ["A", "B"], {"A": {"p": 0.4}, "B": {"p": 0.6}})
    label = table.drop_duplicates("image_id").set_index("image_id")["label"]
    for system, name in enumerate(["A", "B"]):
        step = told["steps"][system]["frozen"]["p"]
        called = label[places[name] >= step]
        assert called.sum() == told["steps"][system]["tp"][step]
        assert (1 - called).sum() == told["steps"][system]["fp"][step]


def test_size_is_bounded_however_many_images():
    table = frame(30_000, systems=("A",))
    table["score"] = np.random.default_rng(1).random(30_000)
    told, _ = explore_thresholds(table, ["A"], {"A": {"max_f1": 0.123456789}})
    assert len(told["steps"][0]["at"]) <= 401
    assert len(json.dumps(told)) < 20_000
    mine = confusion_counts(table["label"] == 1, table["score"], 0.123456789)
    assert counts(told, 0, told["steps"][0]["frozen"]["max_f1"]) == mine


def test_image_without_truth_or_score_is_counted_nowhere():
    table = frame(20)
    table.loc[table["image_id"] == "i00003", "label"] = np.nan
    table.loc[(table["image_id"] == "i00004") & (table["system"] == "B"), "score"] = np.nan
    told, places = explore_thresholds(table, ["A", "B"], {})
    assert "i00003" not in places.index
    assert np.isnan(places.loc["i00004", "B"])
    assert told["positives"] + told["negatives"] == 19
    assert told["steps"][1]["tp"][0] + told["steps"][1]["fp"][0] == 18
