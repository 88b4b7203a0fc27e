"""`predict`: the same answer for a file, a folder, a data set and an export, in every form."""

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

import cxr_compare
from tests.adapters import serving
from tests.adapters.commands import cxr
from tests.adapters.documents import code_blocks

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("detector", "classifier")
EDGES = ["x1", "y1", "x2", "y2"]


@pytest.fixture(scope="module")
def films(world):
    """Files of test images by their ids in the data set."""
    data = cxr_compare.DataSet.open(world.data)
    return {name: data.image_file(name).path for name in data.image_ids("test")[:4]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words):
    """Call `cxr predict` on the CPU; its exit status."""
    return cxr("predict", *words, "--device", "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_answered_as_its_image_in_the_data_set(world, films, kind):
    answers = cxr_compare.predict(world.run(kind), *films.values(), device="cpu")
    stored = cxr_compare.Predictions.open(world.predictions(kind))
    boxes = stored.boxes
    for name, answer in zip(films, answers, strict=True):
        if kind == "classifier":
            (score,) = stored.scores.loc[stored.scores["image_id"] == name, "score"]
            assert answer.score == pytest.approx(score, abs=1e-6)
            assert answer.decision == (answer.score >= answer.threshold)
            assert answer.boxes.empty  # its picture has a heat map
            continue
        of_image = boxes[boxes["image_id"] == name].sort_values("score", ascending=False)
        found = answer.boxes[[*EDGES, "score"]].to_numpy()
        counts = of_image["score"] >= (answer.threshold if answer.decision else np.inf)
        expected = of_image.loc[counts, [*EDGES, "score"]].to_numpy()
        np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_table_say_the_same(world, films, here, capsys, kind):
    words = (f"A={world.run(kind)}", *films.values(), "--out", "drawn", "--csv", "table.csv")
    assert ask(*words, "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    digest = hashlib.sha256((world.run(kind) / "model.safetensors").read_bytes()).hexdigest()
    with (here / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(answers) == len(rows) == len(films)
    for answer, row in zip(answers, rows, strict=True):
        assert (answer["image"], answer["system"]) == (row["image"], "A")
        assert answer["run"] == row["run"] == digest[:12]
        assert row["system"] == "A"
        assert answer["score"] == pytest.approx(float(row["score"]), abs=1e-6)
        assert (answer["decision"] or "") == row["decision"]
        if answer["decision"] is not None:
            called = answer["score"] >= answer["threshold"]
            assert answer["decision"] == ("positive" if called else "negative")


def test_predict_and_overlay_draw_the_same_map(world, films, here):
    """The levels that the run stores are those of its validation images in the data set."""
    opened = cxr_compare.DataSet.open(world.data)
    labels = opened.labels(opened.target())
    name = next(name for name in opened.image_ids("test") if labels[name] == 0)
    chosen = {"policy": "threshold=0.0001"}  # called positive, so that it has a map
    cxr_compare.predict(
        world.run("classifier"), opened.image_file(name).path, out="p.png", device="cpu", **chosen
    )
    stored = world.predictions("classifier")
    cxr_compare.overlay(stored, data=world.data, out="o", image=[name], **chosen)
    panels = []
    for file, place in (
        ("p.png", 1),
        (f"o/{name}-overlay.png", 2),
    ):  # which has a panel of the truth
        with Image.open(file) as picture:
            left = 8 + place * 488
            panels.append(np.asarray(picture.crop((left, 8, left + 480, 400))).astype(int))
    drawn, expected = panels
    assert (np.ptp(drawn, axis=2) > 40).sum() > 100  # in colour
    assert np.abs(drawn - expected).mean() < 0.05


def test_overlays_of_yesterday_leave_and_the_other_files_of_the_folder_stay(world, films, here):
    first, second, *_ = films.values()
    (here / "drawn").mkdir()
    (here / "drawn/notes.txt").write_text("mine")
    for files in ((first, second), (second,)):
        assert ask(world.run("classifier"), *files, "--out", "drawn") == 0
        drawn = {path.name for path in (here / "drawn").glob("*.png")}
        page = (here / "drawn/index.html").read_text(encoding="utf-8")
        assert drawn == {f"{file.stem}-overlay.png" for file in files}
        assert set(re.findall(r'href="([^"]+-overlay.png)"', page)) == drawn
    assert (here / "drawn/notes.txt").read_text() == "mine"


def test_a_folder_is_answered_file_by_file_and_what_is_no_image_is_named(
    world,
    films,
    here,
    capsys,
):
    (here / "films").mkdir()
    for name, path in films.items():
        shutil.copy(path, here / "films" / f"{name}.dcm")
    (here / "films" / "notes.txt").write_text("no image")
    status = ask(f"A={world.run('classifier')}", "films", "--csv", "table.csv", "--out", "drawn")
    assert status == 1  # some files were left out
    out, err = capsys.readouterr()
    assert (out + err).count("notes.txt") == 1
    table = pd.read_csv(here / "table.csv")
    answered = table[table["score"].notna()]
    assert sorted(answered["image"]) == sorted(f"films/{name}.dcm" for name in films)
    one_by_one = cxr_compare.predict(world.run("classifier"), *films.values(), device="cpu")
    by_name = {name: answer.score for name, answer in zip(films, one_by_one, strict=True)}
    for row in answered.itertuples():
        name = row.image.removeprefix("films/").removesuffix(".dcm")
        assert row.score == pytest.approx(by_name[name], abs=1e-6)


def test_the_page_begins_with_what_somebody_must_look_at(world, films, here):
    (here / "images").mkdir()
    for name, path in films.items():
        shutil.copy(path, here / "images" / f"{name}.dcm")
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((320, 240)).save(here / "images/holiday.jpg")
    (here / "images/cut.dcm").write_bytes(next(iter(films.values())).read_bytes()[:500])
    run = world.run("classifier")
    scores = [answer.score for answer in cxr_compare.predict(run, *films.values())]
    positive_from = f"threshold={sorted(scores)[-2]!r}"
    answers = cxr_compare.predict(run, here / "images", out="drawn", policy=positive_from)
    decision = {answers.overlays[answer.image]: answer.decision for answer in answers}
    page = (here / "drawn/index.html").read_text(encoding="utf-8")
    shown = re.findall(r'href="([^"]+-overlay.png)"', page)[: len(decision)]
    places = [(True, None, False).index(decision[name]) for name in shown]
    assert places == sorted(places)
    assert {*places} == {0, 1, 2}
    assert page.count("cut.dcm") == 1


def test_the_page_lists_the_images_on_which_two_systems_disagree(world, films, here):
    runs = [f"{kind}={world.run(kind)}" for kind in KINDS]
    scores = {answer.score for answer in cxr_compare.predict(*runs, *films.values())}
    middle = f"threshold={np.median([*scores])!s}"
    answers = cxr_compare.predict(*runs, *films.values(), out="drawn", policy=middle)
    decisions = {}
    for answer in answers:
        decisions.setdefault(answer.image, set()).add(answer.decision)
    n_disputed = sum(len(both) == 2 for both in decisions.values())
    assert n_disputed > 0
    page = (here / "drawn/index.html").read_text(encoding="utf-8")
    assert f"The systems disagree<small>{n_disputed}<" in page


def test_predictions_of_a_set_cover_validation_and_test_images(world):
    data = cxr_compare.DataSet.open(world.data)
    stored = cxr_compare.Predictions.open(world.predictions("classifier"))
    expected = {*data.image_ids("val"), *data.image_ids("test")}
    assert set(stored.images_run) == expected
    assert set(stored.scores["image_id"]) == expected
    assert stored.scores["score"].between(0, 1).all()


def test_a_photograph_gets_no_decision(world, here):
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((320, 240)).save(here / "holiday.jpg")
    (answer,) = cxr_compare.predict(world.run("classifier"), here / "holiday.jpg", device="cpu")
    assert answer.decision is None
    assert answer.warnings


def written(folder):
    """Bytes of the table and of the pictures of a call."""
    files = [path for path in folder.rglob("*") if path.suffix in (".csv", ".png")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_of_odd_names_cost_no_other_answer(world, films, here):
    images = here / "images"
    images.mkdir()
    film = next(iter(films.values())).read_bytes()
    (images / "plain.dcm").write_bytes(film)
    (images / f"{'n' * 240}.dcm").write_bytes(film)
    (images / f"{'ß' * 120}.dcm").write_bytes(film)
    (images / os.fsdecode(b"M\xfcller.dcm")).write_bytes(film)
    answers = cxr_compare.predict(
        world.run("classifier"), images, out="drawn", csv="table.csv", device="cpu"
    )
    assert len(answers) == 3
    (reason,) = answers.left_out.values()
    assert "UTF-8" in reason
    assert len(list((here / "drawn").glob("*.png"))) == 3
    with (here / "table.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert ask(world.run("classifier"), images, "--json") == 1  # both ends of a terminal take it


def test_what_a_killed_call_left_beside_its_overlays_is_removed(world, films, here):
    (here / "drawn").mkdir()
    (here / "drawn/.a-overlay.png-0123abcd.tmp").touch()
    (here / ".table.csv-0123abcd.tmp").touch()
    (here / ".other.csv-0123abcd.tmp").touch()
    cxr_compare.predict(
        world.run("classifier"), *films.values(), out="drawn", csv="table.csv", device="cpu"
    )
    left = [path.name for path in here.rglob("*") if path.name.startswith(".")]
    assert left == [".other.csv-0123abcd.tmp"]


# --- a folder for each night ----------------------------------------------------------------------


def test_the_columns_of_the_table_are_those_of_the_document(world, films, here):
    assert ask(world.run("classifier"), *films.values(), "--csv", "table.csv") == 0
    blocks = [text for _, text in code_blocks(ROOT / "docs/formats.md")]
    header = (here / "table.csv").read_text(encoding="utf-8").splitlines()[0]
    assert f"{header}\n" in blocks


IDS = {"sop_instance_uid": "SOPInstanceUID", "study_instance_uid": "StudyInstanceUID"}


def test_ids_of_dicom_files_are_in_table_and_json_if_asked_for_and_nowhere_else(
    world, films, here, capsys
):
    (here / "inbox").mkdir()
    content = next(iter(films.values())).read_bytes()
    header = pydicom.dcmread(next(iter(films.values())))
    stated = {name: str(header[keyword].value) for name, keyword in IDS.items()}
    odd = content
    for text in stated.values():
        odd = odd.replace(text.encode(), "=1+1".ljust(len(text)).encode())
    files = {"cut.dcm": content[: len(content) // 2], "film.dcm": content, "odd.dcm": odd}
    for name, written_bytes in files.items():
        (here / "inbox" / name).write_bytes(written_bytes)
    Image.fromarray(header.pixel_array).save(here / "inbox/film.png")
    unknown = dict.fromkeys(IDS)
    expected = {"cut.dcm": stated, "film.dcm": stated, "film.png": unknown, "odd.dcm": unknown}
    call = (world.run("classifier"), "inbox", "--csv", "table.csv")

    assert ask(*call) == 1
    assert not set(IDS) & set(pd.read_csv("table.csv").columns)
    printed = "".join(capsys.readouterr())
    assert ask(*call, "--dicom-ids") == 1
    printed += "".join(capsys.readouterr())
    assert not [text for text in stated.values() if text in printed]
    assert "=1+1" not in printed
    table = pd.read_csv("table.csv", dtype=object)
    found = table.where(table.notna(), None).set_index("image")[list(IDS)].to_dict("index")
    assert {Path(name).name: ids for name, ids in found.items()} == expected
    assert ask(*call, "--dicom-ids", "--json") == 1
    answers = json.loads(capsys.readouterr().out)
    assert {Path(each["image"]).name: {n: each[n] for n in IDS} for each in answers} == expected
    assert ask(world.run("classifier"), "--data", world.data, "--out", "p", "--dicom-ids") == 2


@pytest.mark.parametrize("lost", [[], ["overlays.json"]])
def test_a_stopped_call_leaves_no_page_of_the_night_before(world, films, here, lost):
    first, second, *others = films.values()
    run = world.run("classifier")
    assert ask(run, first, second, "--out", "drawn") == 0
    for name in lost:  # as kill -9 just before the record
        (here / "drawn" / name).unlink()
    with serving.stopped_at(2):
        assert ask(run, *others, "--out", "drawn") == 130
    left = [path.name for path in (here / "drawn").iterdir() if not path.name.startswith(".")]
    assert left == [f"{others[0].stem}-overlay.png"]
