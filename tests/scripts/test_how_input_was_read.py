"""Notes of a comparison on what its readers left out or assumed, however the input is given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.import_predictions import import_predictions
from tests.scripts.small_sets import cxr, table_set

N = 80
IDS = [f"img{number:02d}" for number in range(N)]
Y = np.arange(N) % 2
TRUTH = pd.DataFrame({"image_id": IDS, "label": Y})
TRUE_BOXES = pd.DataFrame({"image_id": IDS, "x1": 10.0, "y1": 10.0, "x2": 60.0, "y2": 60.0})[Y == 1]
SCORES = np.round(0.2 + 0.4 * Y + 0.3 * np.random.default_rng(0).random(N), 3)
BOXES = pd.DataFrame(
    {"image_id": IDS, "x1": 12.0, "y1": 11.0, "x2": 61.0, "y2": 58.0, "score": SCORES}
)


def with_empty_box(boxes: pd.DataFrame) -> pd.DataFrame:
    return boxes.assign(x2=boxes["x2"].where(boxes["image_id"] != "img41", boxes["x1"]))


def outputs(boxes: pd.DataFrame) -> list[dict[str, Any]]:
    by_image = (boxes[boxes["image_id"] == image] for image in IDS)
    return [
        {"boxes": rows[["x1", "y1", "x2", "y2"]].to_numpy(), "scores": rows["score"].to_numpy()}
        for rows in by_image
    ]


def compare_frames(system: Any, **options: Any) -> Any:
    given = {"truth": TRUTH, "boxes": TRUE_BOXES, "replicates": 100, **options}
    return compare({"D": system}, **given)


def write_files(boxes: pd.DataFrame, folder: Path) -> None:
    boxes.to_csv(folder / "d.csv", index=False)
    TRUTH.to_csv(folder / "t.csv", index=False)
    TRUE_BOXES.to_csv(folder / "tb.csv", index=False)


def compare_files(boxes: pd.DataFrame, folder: Path) -> Any:
    write_files(boxes, folder)
    return compare(
        [f"D={folder / 'd.csv'}"],
        truth=folder / "t.csv",
        boxes=folder / "tb.csv",
        replicates=100,
    )


@pytest.fixture(scope="module")
def whole() -> Any:
    """A comparison in which nothing was left out or assumed."""
    return compare_frames(BOXES)


def data_set(folder: Path) -> Path:
    states = {"mass": np.where(Y == 1, "present", "absent").tolist()}
    return table_set(folder, IDS, states, width=100, height=100, split="test")


def compare_with_data(boxes: pd.DataFrame, folder: Path) -> Any:
    return compare({"D": boxes}, data=data_set(folder), replicates=100)


def compare_imported(boxes: pd.DataFrame, folder: Path) -> Any:
    data = data_set(folder)
    boxes.to_csv(folder / "d.csv", index=False)
    import_predictions(folder / "d.csv", data=data, out=folder / "out", name="D")
    return compare([f"D={folder / 'out'}"], data=data, replicates=100)


@pytest.mark.parametrize(
    "compare_by",
    [
        lambda boxes, folder: compare_frames(boxes),
        compare_files,
        compare_with_data,
        compare_imported,
    ],
    ids=["frame", "files", "frame and data", "imported"],
)
def test_images_taken_as_run_and_boxes_left_out_are_cautions(compare_by, tmp_path):
    few = compare_by(with_empty_box(BOXES)[30:60], tmp_path)
    cautions = [caution for caution in few.cautions if caution.startswith("D: ")]
    assert any("50 of 80 test images" in caution for caution in cautions)
    assert any("1 box" in caution for caution in cautions)
    saved = few.save(tmp_path / "report")
    for text in (str(few), str(saved), saved.page.read_text(), json.dumps(saved.to_dict())):
        assert "50 of 80 test images" in text


def test_a_box_left_out_of_a_list_of_outputs_is_a_caution():
    result = compare_frames(outputs(with_empty_box(BOXES)))
    assert any(text.startswith("D: 1 box") for text in result.cautions)
    assert not any("test images have no box" in text for text in result.cautions)  # all were run


@pytest.mark.parametrize(
    ("boxes", "options", "shown"),
    [
        (BOXES[:70], {}, "10 of 80 test images"),
        (BOXES, {"truth": TRUTH.assign(width=60, height=90)}, "80 boxes"),
        (pd.concat([BOXES, BOXES.assign(score=1e-4)]), {}, "80 boxes"),
        (BOXES.rename(columns={"image_id": "filename"}), {}, "filename"),
    ],
    ids=["some without a box", "clipped", "low scores", "columns"],
)
def test_what_is_usual_in_reading_is_a_note_and_no_caution(boxes, options, shown, whole, tmp_path):
    result = compare_frames(boxes, **options).save(tmp_path / "report")
    assert shown in str(result)
    assert shown in result.page.read_text()
    assert not any(shown in caution for caution in result.cautions)
    assert shown not in str(whole)


def test_columns_and_uncertain_labels_of_files_are_notes_from_python_too(tmp_path):
    labels = TRUTH.assign(label=[-1, *Y[1:]], remark="x")
    labels.to_csv(tmp_path / "t.csv", index=False)
    BOXES.to_csv(tmp_path / "d.csv", index=False)
    shown = str(compare([f"D={tmp_path / 'd.csv'}"], truth=tmp_path / "t.csv", replicates=100))
    assert "remark" in shown
    assert "-1" in shown


def test_the_command_line_prints_each_of_these_facts_once(tmp_path, capsys):
    write_files(with_empty_box(BOXES)[30:60], tmp_path)
    words = [
        f"D={tmp_path / 'd.csv'}",
        "--truth",
        tmp_path / "t.csv",
        "--boxes",
        tmp_path / "tb.csv",
    ]
    capsys.readouterr()
    assert cxr("compare", *words, "--replicates", "100", "--out", tmp_path / "report") == 0
    printed = "".join(capsys.readouterr())
    for fact in ("50 of 80 test images", "1 box without", "t.csv: 80 rows", "tb.csv: 40 rows"):
        assert printed.count(fact) == 1, printed


def test_hidden_names_are_hidden_in_these_notes(tmp_path):
    boxes = with_empty_box(BOXES)
    plain = compare_frames(boxes, out=tmp_path / "plain")
    hidden = compare_frames(boxes, out=tmp_path / "hidden", hide_names=True)
    for result, is_named in ((plain, True), (hidden, False)):
        texts = result.page.read_text() + (result.folder / "answer.json").read_text()
        assert ("img41" in texts) is is_named
        assert ("no file names" in str(result)) is not is_named
        assert any("1 box" in text for text in result.cautions)


def test_a_result_with_all_boxes_inside_their_images_has_no_such_note(whole):
    assert whole.answer.reading == ()
    assert cxr_compare.compare({"A": SCORES}, truth=Y, replicates=100).answer.reading == ()
