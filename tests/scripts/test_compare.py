"""`cxr compare`: its report's folder, and one report a target."""

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.show import show
from cxr_compare.training.run_info import RunInfo
from tests.scripts.small_sets import table_set, write_predictions


def test_a_finished_report_answers_the_same_call_and_refuses_another(
    data, system, tmp_path, capsys
):
    report = tmp_path / "report"

    def ask(system=system, **options):
        options = {"target": ["opacity"], "replicates": 100, **options}
        compare(system, data=data, out=report, progress=True, **options)
        return (report / "answer.json").stat().st_mtime_ns

    first = ask()
    assert "\nDrawing cases\n" in capsys.readouterr().err
    run_command(show, report)
    shown = capsys.readouterr().err
    answer = json.loads((report / "answer.json").read_text())["headline"]
    assert answer in shown
    assert re.search(r"AUROC +\S+ \(\S+ to \S+\)", shown)
    assert ask() == first
    assert "--overwrite" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"finished report of Reader on .* with unit image, not patient; ch"
    ):
        ask(unit="patient")
    with pytest.raises(InputError, match="with metrics none, not f1; choose"):
        ask(metrics="f1")
    with pytest.raises(
        InputError, match=r"and these are other systems; choose another out=\.\.\., or"
    ):
        ask(shutil.copytree(system, tmp_path / "other"))
    assert ask(unit="patient", overwrite=True) > first
    dataset, predictions = DataSet.open(data), Predictions.open(system)
    tuned = tune_predictions(predictions, LabelledSplit(dataset, dataset.target("opacity")))
    store_decision(predictions, tuned)
    with pytest.raises(InputError, match=r"opacity\.json has changed since; choose"):
        ask(unit="patient")
    assert not (report / "opacity").exists()  # one target named: the report itself


def test_images_of_a_data_set_are_its_own(data, system, tmp_path):
    with pytest.raises(InputError, match=r"images=.*: is for truth="):
        compare({"R": system}, data=data, images=tmp_path)
    with pytest.raises(InputError, match=r'images="some": is neither all nor common'):
        compare({"R": system}, data=data, images="some")


@pytest.mark.parametrize("name", ["cases-smith.html", "thesis.tex"])
def test_folder_with_anything_else_is_refused_and_unchanged(data, system, tmp_path, name):
    report = tmp_path / "report"
    report.mkdir()
    (report / name).write_text("years of work")
    with pytest.raises(InputError, match=rf"holds .{name}."):
        compare([system], data=data, out=report, target="opacity", replicates=100)
    assert (report / name).read_text() == "years of work"


FINDINGS = ("effusion", "opacity")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without pixels: 60 patients, two findings."""
    ids = [f"i{number:02d}" for number in range(60)]
    states = {
        finding: ["present" if number % every < 2 else "absent" for number in range(60)]
        for finding, every in zip(FINDINGS, (6, 8), strict=True)
    }
    return table_set(tmp_path_factory.mktemp("set"), ids, states, split=["val", "test"] * 30)


@pytest.fixture
def system(data: Path, tmp_path: Path) -> Path:
    return write_system(data, tmp_path / "reader", seed=0)


def write_system(data: Path, folder: Path, seed: int) -> Path:
    ids = DataSet.open(data).images["image_id"].to_numpy()
    rng = np.random.default_rng(seed)
    parts = [
        pd.DataFrame({"image_id": ids, "finding": finding, "score": rng.random(len(ids))})
        for finding in FINDINGS
    ]
    return write_predictions(folder, data, ids, scores=pd.concat(parts))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            "nowhere",
            "nowhere: no such folder; give a run, or a folder that cxr predict or cxr import made",
        ),
        ("of-other-images", "of Reader were made on a data set with content_id"),
        ("mass", r"mass: predicts 'mass', which .* does not label; it has effusion, opacity"),
        ("again/run", "'run': .*/run and .*/again/run"),
    ],
)
def test_all_systems_are_looked_at_before_the_first_is_predicted(
    data, system, tmp_path, monkeypatch, second, message
):
    monkeypatch.setattr(
        "cxr_compare.scripts.systems.load_model", lambda path: pytest.fail("predicted")
    )
    other = table_set(tmp_path / "other", list("ab"), {name: ["present"] * 2 for name in FINDINGS})
    write_system(other, tmp_path / "of-other-images", seed=0)
    for name, finding in (("run", "opacity"), ("mass", "mass"), ("again/run", "opacity")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.toml").touch()
        RunInfo(name="A", findings=[finding]).write(tmp_path / name / "run.json")
    with pytest.raises(InputError, match=message):
        compare([tmp_path / "run", tmp_path / second], data=data, target="opacity")


def test_systems_of_one_name_have_the_names_of_their_folders(data, system, tmp_path, capsys):
    other = write_system(data, tmp_path / "other", seed=1)
    named = write_system(data, tmp_path / "third", seed=2)
    assert Predictions.open(system).name == Predictions.open(other).name
    options = {"data": data, "target": "opacity", "policy": ["threshold=0.5"], "replicates": 100}
    systems = [str(system), str(other), f"Other={named}"]
    result = cxr_compare.compare(systems, **options, progress=True)
    assert result.systems == ["reader", "other", "Other"]
    said = [line for line in capsys.readouterr().err.splitlines() if "folder" in line]
    assert len(said) == 1
    assert "reader and other" in said[0]
    assert cxr_compare.compare([f"A={system}", str(other)], **options).systems == ["A", "Reader"]


def test_python_returns_what_the_command_writes(data, system, tmp_path, capsys):
    other = write_system(data, tmp_path / "other", seed=1)
    options = {"target": "opacity", "replicates": 100, "policy": ["threshold=0.5"]}
    systems = {"A": str(system), "B": Predictions.open(other)}
    result = cxr_compare.compare(systems, data=str(data), out=tmp_path / "report", **options)
    output = capsys.readouterr()
    assert output.out + output.err == ""  # nobody asked for progress
    written = json.loads((tmp_path / "report" / "answer.json").read_text())
    assert result.page == tmp_path / "report" / "report.html"
    assert result.page.is_file()
    assert result.headline == written["headline"]
    assert list(result.cautions) == written["cautions"]
    rows = set(result.figures[["kind", "first", "second"]].itertuples(index=False, name=None))
    assert rows == {("system", "A", ""), ("system", "B", ""), ("difference", "A", "B")}
    stored = pd.read_csv(tmp_path / "report" / "figures.csv")
    assert stored["estimate"].dropna().tolist() == pytest.approx(
        result.figures["estimate"].dropna()
    )
    by_metric = stored.groupby(["subgroup", "policy", "metric"], dropna=False)["estimate"]
    assert (by_metric.count() > 0).all()  # what no system has is in figures.parquet alone
    assert "threshold=0.5" in set(result.figures["policy"])
    written_at = result.page.stat().st_mtime_ns
    again = cxr_compare.compare(
        systems, data=DataSet.open(data), out=tmp_path / "report", **options
    )
    pd.testing.assert_frame_equal(again.figures, result.figures)
    assert again.page.stat().st_mtime_ns == written_at  # a finished report stays
    with pytest.raises(InputError, match="replicates 100, not 200"):
        cxr_compare.compare(
            systems, data=data, out=tmp_path / "report", **options | {"replicates": 200}
        )


def test_nothing_in_a_report_names_a_folder_of_the_machine(data, system, tmp_path):
    other, report = write_system(data, tmp_path / "other", seed=1), tmp_path / "report"
    systems = [system, f"B={other}"]
    compare(systems, data=data, out=report, target="opacity", replicates=100, policy=["youden"])
    content = {str(path): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    for path in (tmp_path, data, Path.home(), Path.cwd()):
        assert not [name for name, file in content.items() if f"{path}/".encode() in file]
        assert not [name for name, file in content.items() if str(path.resolve()).encode() in file]
    command = json.loads((report / "answer.json").read_text())["provenance"]["command"]
    assert "reader" in command
    assert "B=other" in command


def test_a_result_shows_itself_in_a_notebook(data, system, tmp_path):
    named = {"A <1>": system, "B": write_system(data, tmp_path / "other", seed=1)}
    result = cxr_compare.compare(named, data=data, target="opacity", replicates=100)
    assert repr(result) == ("<Result of A <1> and B on opacity: 30 test images, not written>")
    page = result._repr_html_()
    assert html.escape(result.headline) in page
    assert "A &lt;1&gt;" in page
    assert result.table.loc[("Without a threshold", "AUROC"), "B"] in page
    assert set(result.cases(2)["image_id"]) <= set(result.decisions["image_id"])
    assert result.plot("roc").axes
    with pytest.raises(InputError, match="no chart 'rok'; this comparison has forest, roc, "):
        result.plot("rok")
    with pytest.raises(InputError, match="none of the test images"):
        result.overlay("i00")


def test_what_lies_in_a_folder_prints_one_line(data, system):
    assert repr(DataSet.open(data)) == (
        f"<DataSet 'data': 60 images, targets effusion, opacity, {data}>"
    )
    assert repr(Predictions.open(system)) == (
        f"<Predictions of 'Reader': scores on 60 images, {system}>"
    )


def test_every_target_gets_its_report_and_the_page_joins_them(data, system, tmp_path):
    out = tmp_path / "report"
    compare([f"Reader={system}"], data=data, out=out, target=["all"], replicates=100)
    joined = pd.read_csv(out / "figures.csv")
    assert set(joined["target"]) == set(FINDINGS)
    page = (out / "report.html").read_text()
    for finding in FINDINGS:
        alone = pd.read_csv(out / finding / "figures.csv")
        part = joined[joined["target"] == finding].reset_index(drop=True)
        pd.testing.assert_series_equal(part["estimate"], alone["estimate"])
        assert f'href="{finding}/report.html"' in page
        assert (out / finding / "report.html").is_file()
        auroc = alone.query("metric == 'auroc' and subgroup == 'all'").iloc[0]
        figure = f"<b>{auroc.estimate:.3f}</b> <small>({auroc.ci_low:.3f} to {auroc.ci_high:.3f})"
        assert figure in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "prefers-color-scheme: dark" in style
    assert style in (out / FINDINGS[0] / "report.html").read_text()  # one owner of the looks
    assert "http://" not in page.replace("http://www.w3.org", "")  # opens without a network
    with pytest.raises(InputError, match="with replicates 100, not 200"):
        compare([f"Reader={system}"], data=data, out=out, target=["all"], replicates=200)
    assert (out / "report.html").is_file()  # what was refused has changed nothing
    (out / "thesis.docx").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'thesis\.docx'"):
        compare([f"Reader={system}"], data=data, out=out, target=["all"], replicates=100)


def test_several_targets_and_none_named_are_refused(data, system, tmp_path):
    with pytest.raises(InputError, match="choose one with target="):
        compare([str(system)], data=data, out=tmp_path / "report")
