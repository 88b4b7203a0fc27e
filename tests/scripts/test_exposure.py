"""Exposure: test images that an encoder has seen are counted, refused, or left out in pairs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.nested_auroc import part_minus_whole

POLICY = ["threshold=0.5"]
"""A policy that needs no validation images."""
N = 90
IDS = [f"{n // 3:08d}_{n % 3:03d}" for n in range(N)]
"""Names as those of NIH: three images of each of 30 patients."""


@pytest.fixture(scope="module")
def images() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    label = (np.arange(N) % 2).astype(float)
    good = np.clip(0.4 + 0.2 * label + rng.normal(scale=0.2, size=N), 0, 1)
    poor = np.clip(0.5 + 0.05 * label + rng.normal(scale=0.2, size=N), 0, 1)
    patients = ["nih:" + name[:8] for name in IDS]
    columns = {"patient_id": patients, "label": label, "good": good, "poor": poor}
    return pd.DataFrame(columns, index=pd.Index(IDS, name="image_id"))


def compared(images: pd.DataFrame, **options):
    return cxr_compare.compare(
        {"A": images["good"], "B": images["poor"]},
        truth=images["label"],
        patients=images["patient_id"],
        replicates=100,
        policy=POLICY,
        **options,
    )


def seen_list(path: Path, names, *, labels="unseen", column="image_id", encoder="E") -> Path:
    facts = ["# source: the authors' list", f"# labels: {labels}"]
    if encoder:
        facts.append(f"# encoder: {encoder}")
    path.write_text("\n".join([*facts, column, *names, ""]))
    return path


@pytest.mark.parametrize(
    ("names", "column"),
    [
        ([name + "x" for name in IDS], "image_id"),
        (["IMG1", "IMG2"], "nih_image"),
    ],
)
def test_list_of_which_no_name_fits_is_refused(tmp_path, images, names, column):
    path = seen_list(tmp_path / "seen.csv", names, column=column)
    with pytest.raises(InputError, match=names[0]):
        compared(images, exposure={"A": path})


@pytest.mark.parametrize("end", [",1", "\t1", ".png;0,5"])
def test_first_cell_of_a_line_names_the_image(tmp_path, images, end):
    path = seen_list(tmp_path / "seen.csv", [name + end for name in IDS[:9]])
    (found,) = compared(images, exposure={"A": path}).to_dict()["exposure"]
    assert found["n_seen"] == 9


def test_figures_without_the_seen_images_are_those_of_the_rest(tmp_path, images):
    """30 images of 20 patients seen: the first image of 10 patients, the others of 10 more."""
    names = [*IDS[0:30:3], *(name for n, name in enumerate(IDS[30:60]) if n % 3)]
    report = compared(images, exposure={"A": seen_list(tmp_path / "seen.csv", names)})
    (found,) = report.to_dict()["exposure"]
    counts = [found[key] for key in ("n_images", "n_seen", "n_patients", "n_patients_seen")]
    assert counts == [90, 30, 30, 20]
    rest = images.drop(names)
    for figure, column in zip(found["figures"], ("good", "poor"), strict=True):
        on_all = roc_auc_score(images["label"], images[column])
        on_rest = roc_auc_score(rest["label"], rest[column])
        assert figure["all"]["estimate"] == pytest.approx(on_all)
        assert figure["unseen"]["estimate"] == pytest.approx(on_rest)
        assert figure["difference"]["estimate"] == pytest.approx(on_rest - on_all)
        assert figure["difference"]["ci_low"] < on_rest - on_all < figure["difference"]["ci_high"]
    assert [figure["system"] for figure in found["figures"]] == ["A", "B"]


def test_the_statement_is_a_caution_and_names_encoder_share_and_source(tmp_path, images):
    report = compared(images, exposure={"B": seen_list(tmp_path / "seen.csv", IDS)})
    caution = next(text for text in report.cautions if "saw" in text)
    assert "encoder E of B" in caution
    assert "100.0 %" in caution
    assert "unlabelled" in caution
    assert "the authors' list" in caution
    (found,) = report.to_dict()["exposure"]
    assert found["figures"][0]["unseen"] is None  # nothing is left
    assert found["figures"][0]["note"]


def rank_auroc(y_true: np.ndarray, scores: np.ndarray) -> float:
    """The Mann-Whitney form of AUROC, in a tenth of the time that scikit-learn takes."""
    n_positive = int(y_true.sum())
    above = rankdata(scores)[y_true].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (len(y_true) - n_positive)))


def test_the_interval_of_the_difference_is_that_of_a_bootstrap_of_patients():
    """Three images of each of 120 patients, a third of them seen, also within patients."""
    rng = np.random.default_rng(8)
    patients = np.repeat(np.arange(120), 3)
    y_true = rng.random(360) < 0.4
    own = rng.normal(scale=0.7, size=120)[patients]
    scores = y_true + own + rng.normal(size=360)
    unseen = rng.random(360) < 0.65
    whole = auroc_parts(y_true, scores, patients, 120)
    part = auroc_parts(y_true[unseen], scores[unseen], patients[unseen], 120)
    gap = part_minus_whole([part], [whole])
    assert rank_auroc(y_true, scores) == pytest.approx(roc_auc_score(y_true, scores), abs=1e-12)
    drawn = []
    rows_of = [np.flatnonzero(patients == patient) for patient in range(120)]
    for _ in range(1_000):
        rows = np.concatenate([rows_of[patient] for patient in rng.integers(120, size=120)])
        left = rows[unseen[rows]]
        drawn.append(
            rank_auroc(y_true[left], scores[left]) - rank_auroc(y_true[rows], scores[rows])
        )
    assert gap.error == pytest.approx(np.std(drawn), rel=0.1)


def test_few_unseen_patients_of_a_class_are_said_beside_the_interval(tmp_path, images):
    (found,) = compared(
        images, exposure={"A": seen_list(tmp_path / "seen.csv", IDS[:69])}
    ).to_dict()["exposure"]
    own = found["figures"][0]
    assert own["difference"]["ci_low"] is not None
    assert own["note"] in found["text"]
    assert own["note"]


def test_images_whose_labels_were_seen_are_refused_also_by_their_patient(tmp_path, images):
    with pytest.raises(InputError, match="labelled"):
        compared(images, exposure=[f"A={seen_list(tmp_path / 'a.csv', IDS[:1], labels='seen')}"])
    # An image of NIH that is not in this data set, of a patient who is.
    other = seen_list(tmp_path / "b.csv", ["00000004_044.png"], labels="seen", column="nih_image")
    with pytest.raises(InputError, match="1 patient"):
        compared(images, exposure={"A": other})
    nobody = seen_list(tmp_path / "c.csv", ["00009999_000.png"], labels="seen", column="nih_image")
    (found,) = compared(images, exposure={"A": nobody}).to_dict()["exposure"]
    assert (found["n_seen"], found["n_patients_seen"]) == (0, 0)


def test_names_of_nih_are_found_through_the_mapping_and_the_rest_is_unknown(tmp_path, images):
    renamed = images.set_axis(pd.Index([f"rsna-{n}" for n in range(N)], name="image_id"))
    seen = seen_list(tmp_path / "seen.csv", [f"{name}.png" for name in IDS[:9]], column="nih_image")
    with pytest.raises(InputError, match="mapping="):
        compared(renamed, exposure={"A": seen})
    rows = [f"rsna-{n},{IDS[n]}.png" for n in range(80)]
    mapping = tmp_path / "rsna_to_nih.csv"
    mapping.write_text("\n".join(["patientId,nih_image", *rows, ""]))
    (found,) = compared(renamed, exposure={"A": seen}, mapping=mapping).to_dict()["exposure"]
    assert (found["n_seen"], found["n_unknown"], found["n_patients_seen"]) == (9, 10, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# labels: unseen\nimage_id\na\n", "source"),
        ("# source: x\nimage_id\na\n", "labels"),
        ("# source: x\n# labels: maybe\nimage_id\na\n", "neither seen nor unseen"),
        ("# source: x\n# labels: unseen\na\nb\n", "line 3"),
        ("# source: x\n# labels: unseen\nimage_id\n", "no image"),
        ("# source: x\n# labels: unseen\n", "no image"),
    ],
)
def test_an_exposure_file_without_its_facts_is_refused(tmp_path, images, text, message):
    path = tmp_path / "seen.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        compared(images, exposure={"A": path})


def test_an_exposure_of_no_system_or_without_use_is_refused(tmp_path, images):
    seen = seen_list(tmp_path / "seen.csv", IDS[:3])
    with pytest.raises(InputError, match="none of the systems A, B"):
        compared(images, exposure={"C": seen})
    with pytest.raises(InputError, match="NAME=FILE"):
        compared(images, exposure=[str(seen)])
    with pytest.raises(InputError, match="no such file"):
        compared(images, exposure={"A": tmp_path / "none.csv"})
    with pytest.raises(InputError, match="mapping="):
        compared(images, mapping=tmp_path)


def test_the_report_has_a_table_and_refuses_another_list_in_its_folder(tmp_path, images):
    out = tmp_path / "report"
    seen = seen_list(tmp_path / "seen.csv", IDS[:20])
    compared(images, exposure={"A": seen}, out=out)
    page = (out / "report.html").read_text()
    assert "Without the seen ones" in page
    stored = json.loads((out / "answer.json").read_text())
    assert stored["exposure"][0]["n_seen"] == 20
    seen_list(seen, IDS[:21])
    with pytest.raises(InputError, match="overwrite=True"):
        compared(images, exposure={"A": seen}, out=out)


def test_seeds_of_a_system_are_averaged(images):
    rest = images.iloc[30:]
    parts = {}
    means = {}
    for name, rows in (("whole", images), ("part", rest)):
        patients = rows["patient_id"].str[-2:].astype(int)
        parts[name] = [
            auroc_parts(rows["label"], rows[seed], patients, 30) for seed in ("good", "poor")
        ]
        means[name] = np.mean([roc_auc_score(rows["label"], rows[s]) for s in ("good", "poor")])
    gap = part_minus_whole(parts["part"], parts["whole"])
    assert gap.estimate == pytest.approx(means["part"] - means["whole"])
    assert gap.has_interval


def test_leaving_out_no_image_changes_nothing_and_has_no_interval(images):
    patients = images["patient_id"].str[-2:].astype(int)
    whole = auroc_parts(images["label"], images["good"], patients, 30)
    gap = part_minus_whole([whole], [whole])
    assert (gap.estimate, gap.has_interval) == (0.0, False)
    assert gap.note
