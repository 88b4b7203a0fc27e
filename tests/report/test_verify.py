"""`cxr verify`: a report is computed again from its folder, and what was changed is named."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from cxr_compare import InputError
from tests.adapters import folders
from tests.report import forgeries


def scores(n=80, seed=3):
    """Truth with names of patients and two systems, most images of patients with two."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 3 == 0).astype(int)
    ids = [f"i{number:03d}" for number in range(n)]
    truth = pd.DataFrame(
        {
            "image_id": ids,
            "label": label,
            "patient_id": [f"JONES_{number // 2}" for number in range(n)],
            "role": np.where(np.arange(n) % 4 < 2, "val", "test"),
            "ward": [f"WARD{number}" for number in range(n)],
        }
    )
    first = label + rng.normal(size=n)
    logits = {"A": first, "B": first + 0.5 * rng.normal(size=n)}
    systems = {
        name: pd.DataFrame({"image_id": ids, "score": 1 / (1 + np.exp(-of))})
        for name, of in logits.items()
    }
    return truth, systems


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Files of a comparison: labels and two tables of scores."""
    folder = tmp_path_factory.mktemp("given")
    truth, systems = scores()
    for name, table in {"truth": truth, **systems}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def compared(given, out, **options):
    systems = [given / "A.csv", given / "B.csv"]
    options = {"truth": given / "truth.csv", "replicates": 100, **options}
    return cxr_compare.compare(*systems, out=out, **options)


@pytest.fixture(scope="module")
def made(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "report"
    compared(given, folder)
    return folder


@pytest.fixture(scope="module")
def bare(given, tmp_path_factory):
    """The same report without what it rests on, which is only compared by digests."""
    folder = tmp_path_factory.mktemp("bare") / "report"
    compared(given, folder, without_inputs=True)
    return folder


@pytest.fixture
def report(made, tmp_path):
    return shutil.copytree(made, tmp_path / "report")


def in_json(path, keys, change):
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = change(place[keys[-1]])
    path.write_text(json.dumps(content))


def in_table(path, column, change):
    table = pd.read_parquet(path)
    row = table[column].first_valid_index()
    table.loc[row, column] = change(table.loc[row, column])
    table.to_parquet(path, index=False)


def in_text(path):
    """Change the last digit of the last number with three decimals."""
    text = path.read_text()
    starts = [n for n in range(len(text) - 5) if text[n : n + 2] == "0."]
    place = max(n for n in starts if text[n + 2 : n + 5].isdigit()) + 4
    digit = str((int(text[place]) + 1) % 10)
    path.write_text(text[:place] + digit + text[place + 1 :])


def seal_again(report):
    """Make all digests anew, as somebody would who wants to hide a change."""
    for folder in (report / "inputs", report):
        folders.name_files(folder)


def named(found, *parts):
    lines = [name + where for name, where in found.differences.items()]
    return any(all(part in line for part in parts) for line in lines)


@pytest.mark.parametrize("kind", ["tables_report", "zoo_report"])
def test_a_report_is_equal(world, kind):
    found = cxr_compare.verify(getattr(world, kind))
    assert found.exit_status == 0, str(found)
    assert found.to_dict()["equal"]


def test_several_findings_are_equal_and_an_edit_of_their_mean_is_named(tmp_path):
    truth, systems = scores()
    truth = truth.assign(mass=truth["label"], nodule=(np.arange(len(truth)) % 5 == 0).astype(int))
    frames = {
        name: table.assign(mass=table["score"], nodule=1 - table["score"]).drop(columns="score")
        for name, table in systems.items()
    }
    (tmp_path / "images").mkdir()
    for name in truth["image_id"][truth["role"] == "test"][:6]:
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / f"images/{name}.png")
    truth = truth.drop(columns="label")
    call = {"target": ["nodule", "mass"], "images": str(tmp_path / "images"), "replicates": 100}
    result = cxr_compare.compare(frames, truth=truth, **call).save(tmp_path / "all")
    assert '<img class="worst"' in result.page.read_text()
    in_text(tmp_path / "all" / "macro.csv")
    found = cxr_compare.verify(tmp_path / "all")
    assert named(found, "macro.csv", "computed again")
    assert [*found.differences] == ["macro.csv"], str(found)  # all else is equal
    assert "to compare with the paper" not in str(found)  # the digest is that of other files
    with pytest.raises(InputError, match="all of them"):
        cxr_compare.verify(tmp_path / "all" / "mass")


GIVEN = {
    "tables": ["truth.csv", "A.csv", "B.csv"],
    "several": ["many.csv", "C.csv", "D.csv"],
    "pictures": ["truth.csv", "true_boxes.csv", "boxes.csv", "a.csv", "../pictures"],
}
FORGERIES = json.loads((Path(__file__).parents[1] / "cases" / "forgeries.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def genuine(world, tmp_path_factory):
    """Reports of each kind with their given files, and the same as they are written again."""
    root = tmp_path_factory.mktemp("genuine")
    made = forgeries.write_reports(root)
    reports = {
        **made,
        "pictures": world.tables_report,
        "runs": world.zoo_report,
    }
    given = dict.fromkeys(made, root) | {"pictures": world.tables}
    right = {}
    for kind, report in reports.items():
        if kind != "folds":
            right[kind] = root / "right" / kind
            found = cxr_compare.verify(report, out=right[kind])
            assert found.exit_status == 0, str(found)
            files = [given[kind] / name for name in GIVEN.get(kind, ())]
            found = cxr_compare.verify(report, *files) if files else found
            assert found.exit_status == 0, str(found)
    return root, reports, given, right


@pytest.mark.parametrize("case", FORGERIES, ids=[case["name"] for case in FORGERIES])
def test_a_forgery_is_found_or_what_hides_it_is_named(case, genuine, tmp_path, monkeypatch):
    """Most need nothing computed anew: they are compared with one report that was."""
    root, reports, given, right = genuine
    kind, report = case["on"], tmp_path / "report"
    if "made_of" in case:
        shutil.copytree(root, tmp_path / "false", ignore=lambda *_: [*reports, "right"])
        for change in case["made_of"]:
            forgeries.falsified(tmp_path / "false", *change)
        forgeries.write_report(tmp_path / "false", report)
        stated = json.loads((reports[kind] / "answer.json").read_text())["provenance"]["files"]
        forgeries.in_json(report, "answer.json", ["provenance", "files"], stated)
    else:
        shutil.copytree(reports[kind], report)
    for name, *arguments in case.get("edit", ()):
        forgeries.OPERATIONS[name](
            report, *arguments, **({"of": root} if name == "inputs_of" else {})
        )
    if case.get("sealed", True) and kind != "folds":
        folders.name_all_files(report)
    if not case.get("again") and kind in right:
        folders.compare_with(right[kind], monkeypatch)
    path = forgeries.archive(report, case["archive"]) if "archive" in case else report
    names = GIVEN[kind] if case.get("given") == "all" else case.get("given", [])
    files = [given[kind] / name for name in names]
    if case["status"] == 2:
        with pytest.raises(InputError):
            cxr_compare.verify(path, *files)
        return
    found = cxr_compare.verify(path, *files)
    assert found.exit_status == case["status"], str(found)
    assert case.get("says", "") in str(found)
    assert len(str(found).splitlines()) == 4


def test_a_record_of_another_commit_that_cannot_be_read_names_the_commit(report):
    in_json(report / "answer.json", ["counts"], lambda _: "none")
    in_json(report / "answer.json", ["provenance", "revision"], lambda _: "0123456789ab")
    with pytest.raises(InputError, match="0123456789ab"):
        cxr_compare.verify(report)


@pytest.mark.parametrize(("version", "status"), [("1.0", 5), (None, 1)])
def test_a_resampled_end_may_move_by_two_resamples_under_other_versions_alone(
    report, version, status, tmp_path
):
    """The report that is right is kept to be read, as the other one is not compared there."""
    in_table(report / "decisions.parquet", "score", lambda v: v * (1 + 1e-13))
    table = pd.read_parquet(report / "figures.parquet")
    row = table.index[(table["metric"] == "average_precision") & (table["second"] == "")][0]
    end = table.loc[row, "ci_low"]
    table.loc[row, "ci_low"] += 0.015
    table.to_parquet(report / "figures.parquet", index=False)
    if version:
        keys = ["provenance", "versions", "scipy"]
        in_json(report / "answer.json", keys, lambda _: version)
    seal_again(report)
    found = cxr_compare.verify(report, out=tmp_path / "right")
    assert found.exit_status == status, str(found)
    lines = found.uncompared if version else found.differences
    assert "figures.parquet" in lines
    assert "decisions.parquet" not in lines  # a last digit
    assert any(f"scipy {version}" in line for line in found.remarks) == bool(version)
    assert pd.read_parquet(tmp_path / "right" / "figures.parquet").loc[row, "ci_low"] == end
    with pytest.raises(InputError, match="right"):
        cxr_compare.verify(report, out=tmp_path / "right")


def test_a_changed_a_lost_and_an_added_file_are_named_by_digests_alone(bare, given, tmp_path):
    found = cxr_compare.verify(bare)
    assert (found.exit_status, found.differences) == (5, {})  # nothing could be computed
    assert any("truth.csv" in line for line in found.uncompared.values())
    files = [given / f"{name}.csv" for name in ("truth", "A", "B")]
    assert cxr_compare.verify(bare, *files).exit_status == 0  # but from these
    assert not (bare / "inputs").exists()
    report = shutil.copytree(bare, tmp_path / "report")
    (report / "figures" / "roc.svg").unlink()
    (report / "joint.json").write_text("{}")
    in_text(report / "report.html")
    in_json(report / "answer.json", ["provenance", "created"], lambda _: "2020-01-01")
    found = cxr_compare.verify(report)
    for name in ("figures/roc.svg", "joint.json", "report.html", "answer.json"):
        assert named(found, f"{name} "), str(found)


def test_another_input_is_named_and_one_that_is_not_given_too(made, given, tmp_path):
    found = cxr_compare.verify(made, given / "truth.csv", given / "A.csv")
    assert found.exit_status == 0
    assert any("B.csv" in line and "truth.csv" not in line for line in found.remarks)
    other = tmp_path / "A.csv"
    other.write_text((given / "A.csv").read_text().replace("i005,0", "i005,1"))
    found = cxr_compare.verify(made, given / "truth.csv", other)
    assert named(found, "A.csv", "system A")
    found = cxr_compare.verify(made, given / "A.csv")  # is read with the labels
    assert (found.exit_status, found.differences) == (5, {})
    for unknown in (tmp_path / "none.csv", shutil.copy(other, tmp_path / "C.csv")):
        with pytest.raises(InputError, match=Path(unknown).name):
            cxr_compare.verify(made, unknown)


def test_a_report_names_no_patient_and_keeps_no_column_that_it_does_not_use(made):
    images = pd.read_parquet(made / "inputs" / "images.parquet")
    names = scores()[0].set_index("image_id")["patient_id"].reindex(images["image_id"])
    order = np.unique(names, return_inverse=True)[1]
    assert images["patient_id"].tolist() == [f"{place + 1:02d}" for place in order]
    assert "ward" not in images
    for path in made.rglob("*"):
        if path.suffix == ".parquet":
            text = pd.read_parquet(path).to_csv()
        else:
            text = path.read_text(errors="replace") if path.is_file() else ""
        assert "JONES" not in text, path
        assert "WARD" not in text, path


def test_the_same_call_shows_the_stored_answer_and_another_one_is_refused(given, made, capsys):
    before = (made / "answer.json").read_bytes()
    again = compared(given, made)
    assert "Resampling" not in capsys.readouterr().err
    assert again.headline == compared(given, made).headline
    assert (made / "answer.json").read_bytes() == before
    for options in ({"policy": "youden"}, {"both": True}, {"numbers_for_ids": True}):
        with pytest.raises(InputError, match="overwrite"):
            compared(given, made, **options)
    truth, systems = scores()
    assert isinstance(truth, pd.DataFrame)
    with pytest.raises(InputError, match="overwrite"):  # values are no files
        cxr_compare.compare(systems, truth=truth, replicates=100, out=made)


def test_the_same_call_on_several_findings_and_on_values_shows_the_stored_answer(tmp_path, capsys):
    truth, systems = scores()
    truth = truth.assign(mass=truth["label"], nodule=truth["label"]).drop(columns="label")
    frames = {
        name: table.assign(mass=table["score"], nodule=table["score"]).drop(columns="score")
        for name, table in systems.items()
    }

    def compare(frames):
        options = {"target": "all", "replicates": 100, "out": tmp_path / "all"}
        return cxr_compare.compare(frames, truth=truth.copy(), **options)

    first = compare(frames)
    capsys.readouterr()
    again = compare({name: table.copy() for name, table in frames.items()})
    assert "Resampling" not in capsys.readouterr().err
    assert (again.headline, str(again)) == (first.headline, str(first))
    frames["A"].loc[3, "mass"] += 0.01
    with pytest.raises(InputError, match="overwrite"):
        compare(frames)


class Scores:
    """Scores as another library holds them: an array, and what cannot be written as text."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.lock = threading.Lock()

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or float)


def test_equal_values_are_one_call_however_they_lie_in_memory(tmp_path, capsys):
    truth, systems = scores()

    def compare(layout=np.ascontiguousarray, kind=list, change=0.0):
        corners = np.array([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 70.0, 80.0]])
        detections = [
            {"boxes": layout(corners), "scores": np.array([score, score / 2])}
            for score in systems["A"]["score"]
        ]
        given = {"A": detections, "B": kind(systems["B"]["score"] + change)}
        return cxr_compare.compare(given, truth=truth, replicates=100, out=tmp_path / kind.__name__)

    compare()
    capsys.readouterr()
    files = compare(layout=np.asfortranarray).answer.provenance.files
    assert "Resampling" not in capsys.readouterr().err
    assert all(len(each["sha256"]) == 64 for each in files)
    with pytest.raises(InputError, match="overwrite"):
        compare(change=1e-9)
    of_b = compare(kind=Scores).answer.provenance.files[2]
    assert of_b == {"given_as": "system B", "name": "Scores in memory"}
    with pytest.raises(InputError, match="overwrite"):  # whether it is the same cannot be told
        compare(kind=Scores)


def test_reports_by_patient_of_several_tables_are_no_folds(tmp_path):
    made = []
    for seed in (3, 4):
        truth, systems = scores(seed=seed)
        truth["patient_id"] += f"-{seed}"
        out = tmp_path / str(seed)
        cxr_compare.compare(systems, truth=truth, unit="patient", replicates=100, out=out)
        made.append(out)
    with pytest.raises(InputError, match="by image"):
        cxr_compare.folds(made, out=tmp_path / "folds")
