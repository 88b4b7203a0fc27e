"""`cxr predict` on a folder: a table, a line for each image on request, and cautions."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import console
from cxr_compare.serving.export_spec import EVALUATION_FILE, validation_folder
from cxr_compare.serving.predict_folder import freeze_decision
from cxr_compare.serving.run import Run
from tests.scripts.small_sets import cxr, drawn_images
from tests.scripts.untrained import untrained_run
from tests.stored_json import put_table


class Made(NamedTuple):
    """A run that guesses, its export, its images, and how many of each role they have."""

    run: Path
    export: Path
    images: Path
    roles: dict[str, int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("folder")
    data = drawn_images(folder, 48, 64, [32])
    run, dataset = untrained_run("classifier", data, folder / "run"), DataSet.open(data)
    with console.silent():
        freeze_decision(run, LabelledSplit(dataset, dataset.target()), console)
    seen = read_table(run / "seen.parquet", "seen")
    identities = dataset.identities(pd.Index(seen["image_id"])).drop(columns="patient_id")
    put_table(seen.merge(identities, on="image_id"), run / "seen.parquet", "seen")
    path = validation_folder(run) / EVALUATION_FILE
    rows = read_table(path, "decisions")
    rows["label"] = np.arange(len(rows)) % 2 * 1.0
    rows["score"] = np.arange(len(rows)) // 2 % 2 * 0.5  # as high for one label as for the other
    put_table(rows, path, "decisions")
    with console.silent():
        assert cxr("export", run, "--format", "onnx") == 0
    images = data.parent / "source/stage_2_train_images"
    named = {path.stem for path in images.iterdir()}
    split = dataset.split("default")
    roles = split.loc[split["image_id"].isin(named), "role"].value_counts().to_dict()
    return Made(run, run / "exports/onnx-fp32", images, roles)


def table_row(text: str, system: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{system} "))
    return line.split()


def test_a_folder_gives_one_row_for_each_system_and_a_csv_row_for_each_image(
    made, tmp_path, capsys
):
    table = tmp_path / "answers.csv"
    capsys.readouterr()
    arguments = (f"A={made.run}", f"B={made.export}", made.images)
    assert cxr("predict", *arguments, "--no-overlay", "--csv", table) == 0
    out, err = capsys.readouterr()
    answers = pd.read_csv(table)
    n_images = len(list(made.images.iterdir()))
    assert len(answers) == 2 * n_images
    assert f"{n_images} of {n_images}" in err
    for system in ("A", "B"):
        of_system = answers[answers["system"] == system]
        counts = [
            n_images,
            int((of_system["decision"] == "positive").sum()),
            int((of_system["decision"] == "negative").sum()),
            int(of_system["decision"].isna().sum()),
            int(of_system["warnings"].notna().sum()),
        ]
        assert table_row(out, system)[1:6] == [str(count) for count in counts]
    assert str(made.images) not in out


def test_images_that_trained_the_run_are_counted(made, tmp_path, capsys):
    table = tmp_path / "answers.csv"
    capsys.readouterr()
    assert cxr("predict", f"A={made.run}", made.images, "--no-overlay", "--csv", table) == 0
    states = pd.read_csv(table)["seen_in_training"].value_counts()
    assert states["train"] == made.roles["train"]
    assert states["val"] == made.roles["val"]
    assert states["no"] == made.roles["test"]
    n_images = sum(made.roles.values())
    assert f"{made.roles['train']} of {n_images} images trained A" in capsys.readouterr().out


def test_a_run_that_guesses_is_named_with_its_auroc_and_so_is_its_export(made, capsys):
    image = sorted(made.images.iterdir())[0]
    measured = Run.open(made.run).validation_auroc
    assert measured is not None
    assert not measured.better_than_chance
    assert Run.open(made.export).validation_auroc == measured
    for system in (made.run, made.export):
        capsys.readouterr()
        assert cxr("predict", f"A={system}", image, "--no-overlay", "--json") == 0
        out, err = capsys.readouterr()
        (answer,) = json.loads(out)
        assert measured.caution("A") in answer["cautions"]
        assert measured.caution("A") in err
        assert cxr("predict", f"A={system}", image, "--no-overlay") == 0
        assert capsys.readouterr().out.count(measured.caution("A")) == 1


def test_an_export_away_from_its_run_does_not_know_its_training_images(made, tmp_path, capsys):
    away = tmp_path / "away"
    away.mkdir()
    for file in made.export.rglob("*"):
        if file.is_file():
            copy = away / file.relative_to(made.export)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    image = sorted(made.images.iterdir())[0]
    hidden = made.run.rename(made.run.with_name("elsewhere"))
    try:
        assert cxr("predict", away, image, "--no-overlay", "--json") == 0
    finally:
        hidden.rename(made.run)
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["seen_in_training"] == "unknown"
    assert any("guessing" in caution for caution in answer["cautions"])  # the export has stored it


def test_verbose_adds_a_line_for_each_image(made, capsys):
    capsys.readouterr()
    assert cxr("predict", f"A={made.run}", made.images, "--no-overlay", "--verbose") == 0
    lines = capsys.readouterr().out.splitlines()
    answers = [line for line in lines if "  A  " in line and line.startswith(str(made.images))]
    assert len(answers) == sum(made.roles.values())
    assert len(table_row("\n".join(lines), "A")) == 8


def test_few_named_files_have_a_line_each_and_no_table(made, capsys):
    files = sorted(made.images.iterdir())
    capsys.readouterr()
    assert cxr("predict", f"A={made.run}", *files[:2], "--no-overlay") == 0
    out = capsys.readouterr().out
    assert out.count("  A  ") == 2
    assert "images  positive" not in out
    assert cxr("predict", f"A={made.run}", *files[:11], "--no-overlay") == 0
    assert table_row(capsys.readouterr().out, "A")[1] == "11"


def test_verbose_is_refused_with_a_data_set(made, capsys):
    data = made.images.parents[1] / "data"
    assert cxr("predict", made.run, "--data", data, "--out", "x", "--verbose") == 2
    assert "--verbose" in capsys.readouterr().err


def test_a_loaded_run_answers_for_a_folder(made, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    for number, file in enumerate(sorted(made.images.iterdir())[:3]):
        (tmp_path / f"{number}.dcm").symlink_to(file)
    run = cxr_compare.load(made.run)
    answers = run.predict(tmp_path)
    assert isinstance(answers, cxr_compare.Answers)
    assert [Path(answer.image).name for answer in answers] == ["0.dcm", "1.dcm", "2.dcm"]
    assert list(answers.left_out) == [str(tmp_path / "notes.txt")]
    assert [answer.score for answer in answers] == [
        pytest.approx(run.predict(answer.image).score, abs=1e-6) for answer in answers
    ]
    assert run.predict(str(tmp_path)).summary["images"].tolist() == [3]
    assert answers.to_frame()["system"].tolist() == [run.name] * 3


def test_many_answers_print_as_a_summary_and_few_as_lines(made):
    answers = cxr_compare.predict(f"A={made.run}", made.images)
    assert len(answers) == sum(made.roles.values())
    assert table_row(str(answers), "A")[1] == str(len(answers))
    assert "trained A" in str(answers)
    assert "<pre>" in answers._repr_html_()
    few = cxr_compare.predict(f"A={made.run}", sorted(made.images.iterdir())[:2])
    assert str(few).count("  A  ") == 2
    assert "<table" in few._repr_html_()
