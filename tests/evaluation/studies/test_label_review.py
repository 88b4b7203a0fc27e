"""Labels in doubt: who may speak, what comes first, how readers agree."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.studies.label_review import review_labels
from cxr_compare.evaluation.studies.reader_agreement import ReaderAgreement
from tests.evaluation.studies.readers_of_data_set import add_readers

_ = np.nan


def reviewed(dataset: DataSet, systems) -> pd.DataFrame:
    review_labels(dataset, dataset.target(), systems)
    return pd.read_csv(dataset.folder / "label_review.csv")


def relabelled(dataset: DataSet, flipped: list[str]) -> DataSet:
    """The same set with other states of some images, whose boxes go."""
    path = dataset.folder / "findings.parquet"
    findings = read_table(path, "findings")
    other = findings["state"].map({"present": "absent", "absent": "present"})
    findings["state"] = findings["state"].mask(findings["image_id"].isin(flipped), other)
    write_table(findings, path, "findings")
    for name in ("boxes", "box_coverage"):
        table = read_table(dataset.folder / f"{name}.parquet", name)
        kept = table[~table["image_id"].isin(flipped)]
        write_table(kept, dataset.folder / f"{name}.parquet", name)
    return DataSet.open(dataset.folder)


@pytest.mark.parametrize(
    ("ratings", "alpha"),
    [
        # Krippendorff 2011, example A: two observers, ten units, binary.
        ({"j": [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], "m": [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]}, 0.095),
        # Example C there: four observers, twelve units, five values, some missing.
        (
            {
                "a": [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
                "b": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
                "c": [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
                "d": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
            },
            0.743,
        ),
    ],
)
def test_alpha_is_the_published_one(ratings, alpha):
    assert ReaderAgreement(pd.DataFrame(ratings, dtype=float)).alpha == pytest.approx(
        alpha, abs=5e-4
    )


def test_no_alpha_where_nobody_differs():
    assert ReaderAgreement(pd.DataFrame({"a": [1.0, 1.0], "b": [1.0, 1.0]})).alpha is None


def test_a_pair_of_readers_has_kappa_and_its_boxes_are_matched_one_to_one():
    # 50 images: both yes 20, only a 5, only b 10, neither 15: kappa 0.4 by hand.
    ids = [f"i{n}" for n in range(50)]
    a = [1.0] * 25 + [0.0] * 25
    b = [1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15
    box = {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0}
    of_a = pd.DataFrame([{"image_id": "i0", **box}, {"image_id": "i1", **box}])
    of_b = pd.DataFrame([{"image_id": "i0", **box, "x2": 8.0}, {"image_id": "i0", **box}])
    agreement = ReaderAgreement(pd.DataFrame({"a": a, "b": b}, ids), {"a": of_a, "b": of_b})
    (pair,) = agreement.pairs()
    assert (pair["images"], pair["positive"], pair["boxes"]) == (50, 20, (2, 2))
    assert pair["kappa"] == pytest.approx(0.4)
    assert (pair["matched"], pair["mean_iou"]) == (0.5, 1.0)


def test_flipped_labels_come_first_with_the_probability_that_speaks_against_them(
    evaluation_set, predict
):
    system = predict("S", skill=4.0)
    ids = evaluation_set.split().query("role != 'train'")["image_id"]
    flipped = sorted(np.random.default_rng(1).choice(ids, 10, replace=False))
    table = reviewed(relabelled(evaluation_set, flipped), [system])
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table["image_id"].head(10).isin(flipped).sum() >= 7  # 1 of 20 by chance
    assert (table["doubt"].diff().dropna() <= 0).all()
    for row in table.itertuples():
        assert f"labelled {row.label}; " in row.reason
        said, usual = (float(part.split()[-1]) for part in row.reason.split(";")[1:])
        assert said == pytest.approx(row.probability, abs=0.006)
        assert said >= usual if row.label == "negative" else said <= usual
        given = row.probability if row.label == "positive" else 1 - row.probability
        assert row.doubt == pytest.approx(1 - given, abs=2e-4)
    page = (evaluation_set.folder / "label_review.html").read_text()
    assert f"{len(table)} of 240 labelled or read images to look at again" in page


def test_a_system_does_not_speak_of_patients_that_it_learned_from(evaluation_set, predict):
    system = predict("S", skill=1.0)
    everything = reviewed(evaluation_set, [system])["image_id"]
    learned = everything.head(3).tolist()
    images = evaluation_set.images.set_index("image_id")["patient_id"]
    seen = pd.DataFrame({"image_id": learned, "patient_id": images[learned], "role": "train"})
    write_table(seen.reset_index(drop=True), system.folder / "seen.parquet", "seen")
    now = reviewed(evaluation_set, [system])["image_id"]
    assert not images[now].isin(images[learned]).any()
    assert len(now)


def test_a_system_that_learned_from_all_images_is_refused(evaluation_set, predict):
    system = predict("S")
    seen = evaluation_set.images[["image_id", "patient_id"]].assign(role="train")
    write_table(seen, system.folder / "seen.parquet", "seen")
    with pytest.raises(InputError, match=r"\bS\b"):
        reviewed(evaluation_set, [system])
    assert not (evaluation_set.folder / "label_review.csv").exists()


def test_a_system_not_shown_better_than_chance_lists_nothing_and_is_named(evaluation_set, predict):
    weak = predict("Weak", skill=0.0)
    good = predict("Good", seed=1, skill=1.5)
    alone = review_labels(evaluation_set, evaluation_set.target(), [weak])
    assert alone.startswith("0 of 240 labelled or read images to look at again: nothing was found")
    assert "Weak: AUROC" in alone
    assert "not shown to be better than chance, so it lists no labels and no boxes" in alone
    assert "replaces" not in alone
    both = review_labels(evaluation_set, evaluation_set.target(), [weak, good])
    assert "label_review.html, which replaces the list made with Weak (1 run)" in both
    table = pd.read_csv(evaluation_set.folder / "label_review.csv")
    pd.testing.assert_frame_equal(table, reviewed(evaluation_set, [good]))
    assert len(table)


def test_a_label_as_unlikely_as_the_class_is_rare_is_not_doubtful(evaluation_set, predict):
    # A system of little skill gives nearly every positive less than 0.5: that is no doubt.
    table = reviewed(evaluation_set, [predict("S", skill=1.0)])
    labels = evaluation_set.labels(evaluation_set.target())
    positives = table.loc[table["label"] == "positive", "probability"]
    negatives = table.loc[table["label"] == "negative", "probability"]
    assert 0 < len(positives) < labels.sum() / 2
    assert positives.max() < labels.mean() < 0.5 <= negatives.min()


def test_boxes_without_support_and_support_without_boxes_are_listed_in_turn(
    evaluation_set, predict
):
    system = predict("D", kind="boxes", skill=4.0)
    boxes = read_table(evaluation_set.folder / "boxes.parquet", "boxes")
    tried = boxes[boxes["image_id"].isin(system.images_run)].reset_index(drop=True)
    found = system.boxes[system.boxes["score"] > 0.9]
    moved = tried["image_id"][0]
    forgotten = found.merge(tried, on="image_id")["image_id"].iloc[-1]
    edges = {"x1": 80.0, "y1": 80.0, "x2": 99.0, "y2": 99.0}
    boxes.loc[boxes["image_id"] == moved, list(edges)] = list(edges.values())
    boxes.loc[boxes["image_id"] == forgotten, list(edges)] = list(edges.values())
    write_table(boxes, evaluation_set.folder / "boxes.parquet", "boxes")
    table = reviewed(DataSet.open(evaluation_set.folder), [system])
    by_kind = {kind: rows.set_index("image_id") for kind, rows in table.groupby("kind")}
    assert by_kind["unsupported box"].loc[moved, "x1"] == 80
    assert by_kind["missing box"].loc[forgotten, "score"] > 0.9
    assert by_kind["missing box"].index.is_unique
    assert table["kind"].head(3).nunique() == 3


def test_readers_who_differ_are_listed_by_name_without_any_system(evaluation_set):
    dataset = add_readers(evaluation_set, {"anna": ["i003"], "bert": [], "carl": []})
    (row,) = reviewed(dataset, []).itertuples()
    word = {"positive": "negative", "negative": "positive"}[row.label]
    assert (row.image_id, row.kind) == ("i003", "disputed label")
    assert f"anna: {word}" in row.reason
    assert f"bert and carl: {row.label}" in row.reason
    assert "alpha" in (dataset.folder / "label_review.html").read_text()


def test_boxes_of_two_readers_that_do_not_meet_are_listed_with_their_share(evaluation_set):
    boxes = read_table(evaluation_set.folder / "boxes.parquet", "boxes")
    first, second, third = boxes["image_id"].unique()[:3]
    dataset = add_readers(evaluation_set, {"anna": [], "bert": []})
    own = boxes[boxes["image_id"].isin([first, second, third])]
    edges = {"x1": 0.0, "y1": 0.0, "x2": 5.0, "y2": 5.0}
    moved = own.assign(**edges)[own["image_id"] == first]
    more = own[own["image_id"] == second].head(1).assign(**edges)
    bert = pd.concat([moved, own[own["image_id"] != first], more]).assign(reader="bert")
    written = pd.concat([boxes, own.assign(reader="anna"), bert], ignore_index=True)
    write_table(written, dataset.folder / "boxes.parquet", "boxes")
    coverage = read_table(dataset.folder / "box_coverage.parquet", "box_coverage")
    whole = [coverage, *(coverage.assign(reader=name) for name in ("anna", "bert"))]
    write_table(
        pd.concat(whole, ignore_index=True), dataset.folder / "box_coverage.parquet", "box_coverage"
    )
    table = reviewed(DataSet.open(dataset.folder), []).set_index("image_id")
    assert table["kind"].tolist() == ["disputed box"] * 2
    n = int((own["image_id"] == second).sum())
    assert table["doubt"].to_dict() == {
        first: 1.0,
        second: pytest.approx(1 / (2 * n + 1), abs=1e-4),
    }
    assert f"1 of {2 * n + 1} " in table.loc[second, "reason"]
    assert "anna" in table.loc[second, "reason"]
