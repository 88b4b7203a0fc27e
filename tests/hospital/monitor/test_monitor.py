"""`cxr monitor` from the outside: its answer, exit status, page, tables and refusals."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.monitor import monitor
from cxr_compare.scripts.commands.show import show
from cxr_compare.scripts.commands.tune import tune
from tests.scripts.small_sets import cxr, refusal, table_set, write_predictions


def write_log(path, n=2000, *, steps=False, **columns):
    """Twenty patients a day, called one time in five; from day 60 on every second time."""
    rng = np.random.default_rng(0)
    late = steps & (np.arange(n) >= 1200)
    called = rng.random(n) < np.where(late, 0.5, 0.2)
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(n) * 72, unit="min")
    log = pd.DataFrame({
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "patient": np.arange(n),
        "image": [f"i{number}" for number in range(n)], "score": rng.random(n).round(3),
        "decision": np.where(called, "positive", "negative"), "view": rng.choice(["PA", "AP"], n),
        **columns,
    })  # fmt: skip
    log.to_csv(path, index=False)
    return path


@pytest.fixture
def quiet(tmp_path):
    return write_log(tmp_path / "quiet.csv")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A data set of 200 validation images, half positive, and predictions that tune has seen."""
    folder = tmp_path_factory.mktemp("reference")
    ids = [f"v{number:03d}" for number in range(200)]
    states = ["present", "absent"] * 100
    data = table_set(folder, ids, {"opacity": states}, split=["val"] * 200, view=["PA"] * 200,
                     age_years=[50] * 200)  # fmt: skip
    scores = np.where(np.arange(200) % 2 == 0, 0.9, 0.1)
    table = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": scores})
    predictions = write_predictions(folder / "scores", data, ids, scores=table)
    tune(predictions, data=data)
    return predictions, data


def test_no_change_is_one_line_with_exit_status_0(quiet, tmp_path, capsys):
    assert cxr("monitor", quiet, "--out", tmp_path / "out") == 0
    line = "Quiet: none of 8 figures has changed."
    assert capsys.readouterr().err.startswith(f"{line} (2,000 images of 2,000 patients, 2026-01-01")
    page = (tmp_path / "out/monitor.html").read_text()
    assert re.search(r"<h1[^>]*>(.*)</h1>", page)[1] == line
    assert page.count("<figure") == 16
    assert show(tmp_path / "out").payload["open"] == tmp_path / "out/monitor.html"


def test_an_alarm_has_exit_status_1_and_is_in_page_and_tables(tmp_path, capsys):
    log, out = write_log(tmp_path / "log.csv", steps=True), tmp_path / "out"
    assert cxr("monitor", log, "--out", out) == 1
    output = capsys.readouterr().err
    assert output.startswith("Changed: call rate from 0.")
    stored = json.loads((out / "monitor.json").read_text())
    for text in stored["figures"][0]["text"]:
        assert text in output
    assert stored["alarm"] is True
    assert "values" not in stored["figures"][0]
    table = pd.read_csv(out / "monitor.csv")
    assert table.loc[table["alarm"], "key"].tolist() == ["call_rate"]
    assert table["change_since"].iloc[0] == stored["figures"][0]["change"]["since"]
    assert cxr("monitor", log, "--out", out, "--since", "2026-03-03") == 0  # into the same folder


def test_monitor_that_can_test_nothing_has_a_distinct_exit_status(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", patient=0)
    assert cxr("monitor", log, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith("Nothing is tested")


def test_an_error_of_the_program_has_another_exit_status_than_a_change(
    quiet, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("cxr_compare.hospital.monitor.monitor.monitor_log", lambda *_, **__: [][0])
    assert cxr("monitor", quiet, "--out", tmp_path / "out") == 3
    assert "IndexError" in capsys.readouterr().err


def test_what_of_a_log_was_not_read_is_in_the_answer_and_on_the_page(tmp_path):
    folder = tmp_path / "log"
    log = AnswerLog(folder, print)
    log.add("a", "P", {}, [{"system": "A", "status": "ok", "score": 0.5, "decision": True}], 0.1)
    (folder / "answers-2026-01-01.jsonl.xz").touch()
    result = monitor(folder, out=tmp_path / "out")
    for text in (result.text, result.page.read_text(), *result.to_dict()["notes"][:1]):
        assert "answers-2026-01-01.jsonl.xz" in text


def test_what_the_log_writes_is_watched_and_audited_with_its_key(tmp_path):
    log = AnswerLog(tmp_path / "log", print)
    for number in range(3):
        answer = {"system": "A", "status": "ok", "score": 0.5, "decision": True}
        log.add(f"1.2.{number}", f"P{number}", {}, [answer], seconds=0.1)
    log.close()
    labels = tmp_path / "audited.csv"
    pd.DataFrame({"image_id": ["1.2.0", "1.2.2"], "label": [1, 0]}).to_csv(labels, index=False)
    result = monitor(tmp_path / "log", out=tmp_path / "out", labels=labels)
    assert result.text.startswith("Nothing is tested yet")
    counts = {row["key"]: row["n_reference"] for row in result.to_dict()["figures"]}
    assert (counts["call_rate"], counts["sensitivity"], counts["ppv"]) == (3, 1, 2)


def test_validation_is_the_reference_of_audited_images(reference, tmp_path):
    predictions, data = reference
    truth = np.tile([1, 1, 0, 0], 500)
    calls = np.where(np.tile([1, 0, 0, 0], 500) == 1, "positive", "negative")
    log = write_log(tmp_path / "log.csv", decision=calls, threshold=0.95)
    labels = tmp_path / "audited.csv"
    pd.DataFrame({"image": [f"i{n}" for n in range(2000)], "label": truth}).to_csv(
        labels, index=False
    )
    options = {"labels": labels, "reference": predictions, "data": data}
    rows = {
        row["key"]: row
        for row in monitor(log, out=tmp_path / "out", **options).to_dict()["figures"]
    }
    # The log decides by 0.95, where validation calls nothing.
    assert rows["sensitivity"]["was"]["mean"] == 0
    assert (rows["sensitivity"]["source"], rows["ppv"]["source"]) == ("validation", "first weeks")
    assert rows["sensitivity"]["n_reference"] == 100
    undecided = write_log(tmp_path / "own.csv", decision=calls)
    result = monitor(undecided, out=tmp_path / "out", **options)
    assert result.exit_status == 1
    assert result.to_dict()["figures"][0]["key"] == "sensitivity"
    assert "Share of view AP: " in result.text  # validation has PA alone


@pytest.mark.parametrize(("positives", "missing"), [(20, 30), (0, 50), (60, None)])
def test_audited_positives_that_are_missing_for_sensitivity_are_counted(
    tmp_path, positives, missing
):
    """Make a log in which 200 of the first 560 patients are audited, so many of them positive."""
    log = pd.read_csv(write_log(tmp_path / "log.csv"))
    audited = pd.DataFrame({"image": log["image"].iloc[:200], "label": 0})
    audited.loc[: positives - 1, "label"] = 1
    audited.to_csv(tmp_path / "audited.csv", index=False)
    result = monitor(tmp_path / "log.csv", out=tmp_path / "out", labels=tmp_path / "audited.csv")
    notes = result.to_dict()["notes"]
    expected = monitor_sentences.few_positives(positives, missing, 28)
    assert (expected in notes) == (missing is not None)
    assert monitor_sentences.NO_SENSITIVITY not in notes


def test_simulated_changes_say_how_many_patients_they_take(quiet, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_compare.hospital.monitor.detection_delay.STREAMS", 15)
    result = monitor(quiet, out=tmp_path / "out", simulate=True)
    delays = {(row["key"], row["becomes"]): row for row in result.to_dict()["delays"]}
    stuck = delays["score>q50", 1.0]
    assert stuck["patients"] < 60
    assert stuck["days"] == pytest.approx(stuck["patients"] / 20, rel=0.02)
    call_rate = next(row for row in delays.values() if row["key"] == "call_rate")
    assert call_rate["becomes"] == pytest.approx(1.5 * call_rate["was"])
    assert call_rate["patients"] is None or call_rate["patients"] > 200
    shifted = next(row for row in delays.values() if row["key"] == "score_mean")
    assert shifted["change"] == "shifted"
    assert shifted["patients"] < 500
    assert "How fast a change is found" in result.page.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "spring"], "is no day such as 2026-03-01"),
        (["--since", "2030-01-01"], "holds no answer from then on"),
        (["--reference", "run"], "--reference and --data go together"),
        (["--target", "edema"], "answers for opacity; choose one of them"),
        (["--labels", "audited.csv"], "none of its images is in the log"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"image": ["x"], "label": [1]}).to_csv("audited.csv", index=False)
    log = write_log(tmp_path / "log.csv", 50, target="opacity")
    assert message in refusal(capsys, "monitor", log, "--out", "out", *options)
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit_are_refused(reference, quiet, tmp_path, capsys):
    predictions, data = reference
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    assert "which no monitor has" in refusal(capsys, "monitor", quiet, "--out", tmp_path / "mine")
    untuned = write_predictions(
        tmp_path / "untuned", data, DataSet.open(data).images["image_id"],
        scores=Predictions.open(predictions).scores,
    )  # fmt: skip
    options = ["--out", tmp_path / "out", "--data", data, "--reference"]
    assert "cxr tune" in refusal(capsys, "monitor", quiet, *options, untuned)
    two = write_log(tmp_path / "two.csv", 50, system=["A", "B"] * 25)
    message = refusal(capsys, "monitor", two, *options, predictions)
    assert "'Reader'" in message
    assert " A, B" in message
    several = write_log(tmp_path / "several.csv", 50, target=["opacity", "mass"] * 25)
    message = refusal(capsys, "monitor", several, *options, predictions)
    assert "--target" in message
