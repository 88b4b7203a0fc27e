"""`cxr export`: one line for what is lost, exit codes, and which folders it takes."""

import json
from pathlib import Path

import pytest

from tests.plain_sets import prepare_plain
from tests.scripts.small_sets import cxr, scored_images, write_source


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without pixels: a mass on ``a``, an uncertain one on ``b``."""
    folder, states = tmp_path_factory.mktemp("export"), {"mass": ["present", "uncertain"]}
    source = write_source(folder / "source", ["a", "b"], states, width=100, height=80)
    (source / "boxes.csv").write_text("image_id,finding,x1,y1,x2,y2\na,mass,1,2,30,40\n")
    prepare_plain(source, folder / "data")
    return folder / "data"


def test_losses_are_listed_and_the_summary_is_json(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert cxr("export", data, out, "--format", "yolo", "--json") == 0
    printed = capsys.readouterr()
    assert "yolo: 1 image " in printed.err
    assert f"{out}: 2 images, 1 box in yolo format" in printed.err
    summary = json.loads(printed.out)
    assert (summary["n_images"], summary["n_boxes"]) == (2, 1)
    assert (out / "labels" / "a.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "pascal"], "coco, yolo"),
        ([], "--format"),
        (["--format", "coco", "--precision", "int8"], "--precision"),
        (["--format", "onnx", "--reader", "r1"], "--reader"),
        (["--format", "onnx"], "data set"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    data, tmp_path, monkeypatch, capsys, arguments, message
):
    assert cxr("export", data, tmp_path / "out", *arguments) == 2
    output = capsys.readouterr().err.strip()
    assert message in output
    assert "\n" not in output
    assert not (tmp_path / "out").exists()


def test_run_and_empty_folder_are_distinguished(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert cxr("export", tmp_path / "run", tmp_path / "out", "--format", "coco") == 2
    assert "--format onnx or openvino" in capsys.readouterr().err
    assert cxr("export", tmp_path, tmp_path / "out", "--format", "coco") == 2
    assert "no dataset.json" in capsys.readouterr().err


def test_folder_to_make_is_given_by_position_or_as_out_and_not_by_both(data, tmp_path, capsys):
    by_option, by_position = tmp_path / "option", tmp_path / "position"
    assert cxr("export", data, "--out", by_option, "--format", "coco") == 0
    assert cxr("export", data, by_position, "--format", "coco") == 0
    written = [sorted(path.name for path in out.rglob("*")) for out in (by_option, by_position)]
    assert written[0] == written[1]
    assert written[0]
    capsys.readouterr()
    both = (tmp_path / "one", "--out", tmp_path / "two")
    assert cxr("export", data, *both, "--format", "coco") == 2
    assert str(tmp_path / "one") in capsys.readouterr().err
    assert not any(path.exists() for path in (tmp_path / "one", tmp_path / "two"))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_predictions_of_other_software_are_no_network_to_export(tmp_path, capsys, name):
    scored = scored_images(tmp_path) / "scores"
    assert cxr("export", scored, "--format", name) == 2
    message = capsys.readouterr().err
    assert "holds predictions" in message
    assert "network of other software cannot" in message
