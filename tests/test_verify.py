"""`cxr verify`: a report is computed again from its folder, and what was changed is named."""

import json
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError
from tests.adapters import folders


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


def as_picture(path, before, text):
    """Put a text behind what a picture in a page begins with."""
    content = path.read_text()
    start = content.index(before) if before else len(content)
    path.write_text(f"{content[:start]}data:image/jpeg;base64,{text}{content[start:]}")


def seal_again(report):
    """Make all digests anew, as somebody would who wants to hide a change."""
    for folder in (report / "inputs", report):
        folders.name_files(folder)


def named(found, *parts):
    return any(all(part in line for part in parts) for line in found.differences)


@pytest.mark.parametrize("kind", ["tables_report", "zoo_report"])
def test_a_report_is_equal(world, kind):
    found = cxr_compare.verify(getattr(world, kind))
    assert found.exit_status == 0, str(found)
    assert found.to_dict()["equal"]


def test_several_findings_are_equal_and_an_edit_of_their_mean_is_named(tmp_path):
    truth, systems = scores()
    truth = truth.assign(mass=truth["label"], nodule=truth["label"][::-1].to_numpy())
    frames = {
        name: table.assign(mass=table["score"], nodule=1 - table["score"]).drop(columns="score")
        for name, table in systems.items()
    }
    result = cxr_compare.compare(
        frames, truth=truth.drop(columns="label"), target=["nodule", "mass"], replicates=100
    )
    result.save(tmp_path / "all")
    in_text(tmp_path / "all" / "macro.csv")
    found = cxr_compare.verify(tmp_path / "all")
    assert named(found, "macro.csv", "computed again")
    assert all("macro.csv" in line for line in found.differences), str(found)  # all else is equal
    with pytest.raises(InputError, match="all of them"):
        cxr_compare.verify(tmp_path / "all" / "mass")


EDITS = {
    "headline": (
        lambda r: in_json(r / "answer.json", ["headline"], lambda _: "A is best."),
        ["answer.json", "headline", "A is best."],
    ),
    "claim": (
        lambda r: in_json(r / "answer.json", ["claims", 0, "higher"], lambda _: "A"),
        ["answer.json", "claims.1.higher"],
    ),
    "csv": (lambda r: in_text(r / "figures.csv"), ["figures.csv: row"]),
    "markdown": (lambda r: in_text(r / "table.md"), ["table.md: line"]),
    "latex": (lambda r: in_text(r / "table.tex"), ["table.tex: line"]),
    "page": (lambda r: in_text(r / "report.html"), ["report.html: line"]),
    "page as a picture": (
        lambda r: as_picture(r / "report.html", '"', "><h1>A: AUROC 0.999</h1><p hidden class="),
        ["report.html: line", "0.999"],
    ),
    "text as a picture": (
        lambda r: as_picture(r / "methods.txt", "", " All readers were blinded.\n"),
        ["methods.txt: line", "blinded"],
    ),
    "text as a quoted picture": (
        lambda r: as_picture(r / "table.md", "", 'src="AAAA"\n'),
        ["table.md: line", "AAAA"],
    ),
    "chart": (
        lambda r: (r / "figures/roc.svg").write_text(
            (r / "figures/roc.svg").read_text().replace("L ", "L 1", 1)
        ),
        ["roc.svg: line"],
    ),
    "figure": (
        lambda r: in_table(r / "figures.parquet", "estimate", lambda v: v + 1e-6),
        ["figures.parquet: row"],
    ),
    "curve": (
        lambda r: in_table(r / "curves.parquet", "x", lambda v: v + 1e-6),
        ["curves.parquet: row"],
    ),
    "decision": (
        lambda r: in_table(r / "decisions.parquet", "label", lambda v: 1 - v),
        ["decisions.parquet: row"],
    ),
}


def test_edits_of_what_is_computed_are_named_although_all_digests_were_made_anew(report):
    for edit, _ in EDITS.values():
        edit(report)
    seal_again(report)
    found = cxr_compare.verify(report)
    assert found.exit_status == 1
    for name, (_, parts) in EDITS.items():
        assert named(found, *parts), f"{name}: {found}"


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: in_table(r / "inputs/images.parquet", "label", lambda v: 1 - v),
        lambda r: in_table(r / "inputs/scores.parquet", "score", lambda v: v / 2),
        lambda r: in_json(r / "answer.json", ["provenance", "request", "seed"], lambda v: v + 1),
        lambda r: in_table(r / "inputs/images.parquet", "image_id", lambda _: "other"),
    ],
    ids=["label", "score", "seed", "image"],
)
def test_an_edit_of_what_figures_rest_on_is_found(report, edit):
    edit(report)
    seal_again(report)
    found = cxr_compare.verify(report)
    assert found.exit_status == 1
    assert len(found.differences) > 0


def test_another_commit_is_said_before_the_differences_whose_number_counts_all(report):
    table = pd.read_parquet(report / "curves.parquet")
    table["x"] += 1.0
    table.to_parquet(report / "curves.parquet", index=False)
    in_json(report / "answer.json", ["provenance", "revision"], lambda _: "0123456789ab")
    seal_again(report)
    found = cxr_compare.verify(report)
    verdict, first, *_ = str(found).splitlines()
    assert f"{found.n_differences:,} differences" in verdict
    assert found.n_differences >= table["x"].notna().sum() > len(found.differences)
    assert "0123456789ab" in first


def test_a_record_of_another_commit_that_cannot_be_read_names_the_commit(report):
    in_json(report / "answer.json", ["counts"], lambda _: "none")
    in_json(report / "answer.json", ["provenance", "revision"], lambda _: "0123456789ab")
    with pytest.raises(InputError, match="0123456789ab"):
        cxr_compare.verify(report)


@pytest.mark.parametrize(("version", "is_equal"), [("1.0", True), (None, False)])
def test_a_resampled_end_may_move_by_two_resamples_under_other_versions_alone(
    report, version, is_equal
):
    """The report differs where that end was written, and not by last digits or versions."""
    in_table(report / "decisions.parquet", "score", lambda v: v * (1 + 1e-13))
    table = pd.read_parquet(report / "figures.parquet")
    row = table.index[(table["metric"] == "average_precision") & (table["second"] == "")][0]
    table.loc[row, "ci_low"] += 0.015
    table.to_parquet(report / "figures.parquet", index=False)
    if version:
        keys = ["provenance", "versions", "scipy"]
        in_json(report / "answer.json", keys, lambda _: version)
    seal_again(report)
    found = cxr_compare.verify(report)
    files = {line.partition(":")[0] for line in found.differences}
    assert files == ({"figures.csv", "report.html"} if is_equal else {"figures.parquet"}), found
    assert any("figures.parquet" in line for line in found.remarks) == is_equal
    assert any(f"scipy {version}" in line for line in found.remarks) == is_equal


def test_a_changed_a_lost_and_an_added_file_are_named_by_digests_alone(bare, given, tmp_path):
    found = cxr_compare.verify(bare)
    assert (found.exit_status, found.differences) == (1, ())  # nothing could be computed
    assert any("inputs" in line for line in found.remarks)
    assert not (bare / "inputs").exists()
    report = shutil.copytree(bare, tmp_path / "report")
    (report / "figures" / "roc.svg").unlink()
    (report / "joint.json").write_text("{}")
    in_text(report / "report.html")
    in_json(report / "answer.json", ["provenance", "created"], lambda _: "2020-01-01")
    found = cxr_compare.verify(report)
    for name in ("figures/roc.svg", "joint.json", "report.html", "answer.json"):
        assert named(found, f"{name}: "), str(found)


def test_another_input_is_named_and_one_that_is_not_given_too(bare, given, tmp_path):
    found = cxr_compare.verify(bare, given / "truth.csv", given / "A.csv")
    assert not found.differences
    assert any("B.csv" in line and "truth.csv" not in line for line in found.remarks)
    other = tmp_path / "A.csv"
    other.write_text((given / "A.csv").read_text().replace("i005,0", "i005,1"))
    (difference,) = cxr_compare.verify(bare, other).differences
    assert "system A" in difference
    with pytest.raises(InputError, match=r"none\.csv"):
        cxr_compare.verify(bare, tmp_path / "none.csv")


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
