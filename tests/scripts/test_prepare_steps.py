"""`cxr prepare` ends with the command that fits, and its refusals have the whole command."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts import cli
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.next_steps import next_steps
from tests.plain_sets import prepare_plain
from tests.scripts.small_sets import table_set
from tests.small_dicom import chest

N_IMAGES = 48


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with PNG images, a table of labels and patients, and a file of CVAT with boxes."""
    folder = tmp_path_factory.mktemp("radiologist")
    (folder / "films").mkdir()
    rows = []
    lines = ["<annotations><version>1.1</version>"]
    for number in range(N_IMAGES):
        name = f"f{number:02d}.png"
        pixels = chest(number)
        side = len(pixels)
        Image.fromarray(pixels).save(folder / "films" / name)
        label = "opacity" if number % 2 else "normal"
        rows.append({"File": name, "Diagnosis": label, "Patient": f"p{number // 2 % 20}"})
        lines.append(f'<image id="{number}" name="{name}" width="{side}" height="{side}">')
        if number % 2:
            lines.append('<box label="opacity" xtl="8" ytl="10" xbr="30" ybr="40"></box>')
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "labels.csv", index=False)
    table.drop(columns="Patient").to_csv(folder / "without_patients.csv", index=False)
    table.loc[3, "Diagnosis"] = "opacitiy"
    table.to_csv(folder / "misspelt.csv", index=False)
    return folder


def steps_of(films: Path, out: Path, *tables: str, **options: object) -> list[str]:
    """Prepare the images with tables, and return the commands that follow."""
    given = [films / table for table in tables]
    made = prepare(*given, films / "films", out, workers=0, **options)  # type: ignore[arg-type]
    steps = list(made.next_steps or ())
    app = cli.build_app()
    for step in steps:  # each can be pasted
        words = shlex.split(step)[1:]
        app.parse_args(words)
        assert words[0] != "check"
    return steps


def test_labels_patients_and_boxes_of_two_files_are_joined(films, tmp_path):
    steps = steps_of(films, tmp_path / "out", "labels.csv", "annotations.xml")
    dataset = DataSet.open(tmp_path / "out")
    assert len(dataset.images) == N_IMAGES
    assert dataset.images["patient_id"].nunique() == 20
    assert len(dataset.boxes) == N_IMAGES // 2
    assert dataset.boxes[["x1", "y1", "x2", "y2"]].drop_duplicates().to_numpy().tolist() == [
        [8, 10, 30, 40]
    ]
    labels = dataset.labels(dataset.target())
    assert labels.tolist() == [float(number % 2) for number in range(N_IMAGES)]
    assert steps == [
        f"cxr train {name}_small --data {tmp_path}/out --out {tmp_path}/{name}"
        for name in ("chexnet", "retinanet")
    ]


def test_files_of_labelme_in_the_folder_are_joined_with_a_table(films, tmp_path, capsys):
    """Only positive images have a JSON, as a radiologist draws them; the table labels all."""
    folder = shutil.copytree(films / "films", tmp_path / "films")
    shape = {"label": "opacity", "points": [[8, 10], [30, 40]], "shape_type": "rectangle"}
    for number in range(1, N_IMAGES, 2):
        name = f"f{number:02d}.png"
        content = {"flags": {}, "shapes": [shape], "imagePath": name}
        (folder / name).with_suffix(".json").write_text(json.dumps(content))
    given = [films / "labels.csv", folder]
    assert cli.run_command(prepare, *given, tmp_path / "out", workers=0) == 0
    assert "--format labelme" in capsys.readouterr().err
    dataset = DataSet.open(tmp_path / "out")
    assert len(dataset.boxes) == N_IMAGES // 2
    assert dataset.images["patient_id"].nunique() == 20
    labels = dataset.labels(dataset.target())
    assert labels.tolist() == [float(number % 2) for number in range(N_IMAGES)]
    alone = prepare(*given, tmp_path / "alone", format="table", workers=0)
    assert alone.boxes.empty
    with pytest.raises(InputError, match=r"f01\.json"):  # only tables are named
        prepare(given[0], folder / "f01.json", folder, tmp_path / "other", workers=0)


def test_without_boxes_only_a_classifier_follows(films, tmp_path):
    (step,) = steps_of(films, tmp_path / "out", "labels.csv")
    assert step.startswith("cxr train chexnet_small ")
    run = tmp_path / "chexnet"
    run.mkdir()
    (run / "run.json").write_text('{"model_kind": "classifier"}')
    assert next_steps(run, tmp_path / "out") == [f"cxr predict {run} IMAGE"]


def test_without_patients_the_last_command_adds_them(films, tmp_path):
    train, again = steps_of(films, tmp_path / "out", "without_patients.csv")
    assert train.startswith("cxr train chexnet_small ")
    words = shlex.split(again)
    assert words[2:5] == [
        str(films / "without_patients.csv"),
        str(films / "films"),
        str(tmp_path / "out-2"),
    ]
    assert words[5:] == ["--columns", "patient=COLUMN"]


def test_without_images_an_import_follows(tmp_path):
    ids = [f"i{number:02d}" for number in range(40)]
    data = table_set(tmp_path, ids, {"mass": ["present", "absent"] * 20})
    made = prepare_plain(tmp_path / "source", data)
    (step,) = made.next_steps or ()
    assert step.startswith(f"cxr import PREDICTIONS.csv --data {data} --out {tmp_path}/predictions")


def test_with_one_class_another_data_set_is_joined(films, tmp_path):
    table = pd.read_csv(films / "labels.csv")
    table[table["Diagnosis"] == "opacity"].to_csv(tmp_path / "positive.csv", index=False)
    made = prepare(tmp_path / "positive.csv", films / "films", tmp_path / "out", workers=0)
    assert list(made.next_steps or ()) == [
        f"cxr prepare {tmp_path}/out OTHER_DATA_SET --out {tmp_path}/both"
    ]


def test_what_was_shown_before_the_images_are_decoded_is_not_said_again(films, tmp_path, capsys):
    assert cli.run_command(prepare, films / "labels.csv", films / "films", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("no boxes") == 1


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["films", "new"], "cxr prepare LABELS.csv films new"),
        (["films"], "cxr prepare LABELS.csv films OUT"),
        (["labels.csv", "films"], "cxr prepare labels.csv films OUT"),
        (["labels.csv", "new"], "cxr prepare labels.csv IMAGES new"),
        (["mixed", "new"], "cxr prepare mixed/labels.csv mixed new"),
        (["dicom", "new"], "cxr prepare dicom new --format dicom --id-key KEY_FILE"),
    ],
    ids=" ".join,
)
def test_a_refusal_has_the_whole_command(films, tmp_path, monkeypatch, words, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").symlink_to(films / "films")
    (tmp_path / "labels.csv").symlink_to(films / "labels.csv")
    (tmp_path / "mixed").mkdir()
    for file in (films / "labels.csv", films / "films/f00.png"):
        (tmp_path / "mixed" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "dicom").mkdir()
    preamble = np.zeros(128, np.uint8).tobytes() + b"DICM"
    (tmp_path / "dicom/a.dcm").write_bytes(preamble)
    with pytest.raises(InputError) as refused:
        prepare(*words)
    assert command in str(refused.value)
    assert not (tmp_path / "new").exists()
