"""Verdicts by the labels of single readers."""

import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.evaluation.statistics.figure_text import number
from tests.stored_json import put_table
from tests.studies.readers.readers_of_data_set import add_readers


def verdicts(systems, dataset):
    """Return the first line, and the rows by reader."""
    outcome = cxr_compare.reader_verdicts(systems, data=dataset.folder, replicates=200)
    return str(outcome).splitlines()[0], pd.DataFrame(outcome.to_dict()).set_index("labels_of")


def test_readers_labels_evaluate_the_test_images_alone_and_compare_the_verdicts(
    evaluation_set, predict
):
    systems = {"A": predict("A", skill=3.0), "B": predict("B", seed=1, skill=0.5)}
    test = evaluation_set.image_ids("test")
    dataset = add_readers(
        evaluation_set, {"same": [], "opposed": list(evaluation_set.images["image_id"])}
    )
    text, rows = verdicts(systems, dataset)
    usual = cxr_compare.compare(systems, data=dataset.folder, replicates=200)
    (claim,) = usual.answer.claims
    assert rows.loc["reference", "estimate"] == claim["estimate"]
    assert rows.loc[["reference", "same"], "same_verdict"].all()
    assert rows.loc["same", "estimate"] == rows.loc["reference", "estimate"]
    assert rows.loc["opposed", "estimate"] == pytest.approx(-rows.loc["reference", "estimate"])
    assert not rows.loc["opposed", "same_verdict"]
    assert (rows["images"] == len(test)).all()
    assert text.startswith("If the labels of opposed replace")
    assert text.endswith("the verdict is the opposite.")
    weak = {"A": predict("A2", skill=0.2), "B": predict("B2", seed=1, skill=0.2)}
    text, rows = verdicts(weak, dataset)
    assert text.startswith("Nothing is shown by the labels of opposed and same")
    lowest, highest = rows["estimate"].min(), rows["estimate"].max()
    assert text.endswith(f"from {number(lowest)} to {number(highest)}.")


def test_labels_by_which_nothing_is_shown_are_another_verdict(evaluation_set, predict):
    half = list(evaluation_set.images["image_id"])[::2]
    dataset = add_readers(evaluation_set, {"vague": half})
    systems = {"A": predict("A", skill=3.0), "B": predict("B", seed=1, skill=0.5)}
    text, rows = verdicts(systems, dataset)
    assert rows["higher"].tolist() == ["A", "not shown"]
    assert text.startswith("If the labels of vague replace")
    assert "the verdict is another" in text


def test_readers_without_a_test_image_are_named_as_such(evaluation_set, predict):
    systems = {"A": predict("A", skill=3.0), "B": predict("B", seed=1, skill=0.5)}
    dataset = add_readers(evaluation_set, {"anna": []})
    path = dataset.folder / "findings.parquet"
    test = dataset.image_ids("test")
    findings = read_table(path, "findings")
    own = (findings["reader"] == "anna") & findings["image_id"].isin(test)
    put_table(findings[~own], path, "findings")
    text, _ = verdicts(systems, dataset)
    assert text == "No reader of the data set has labelled the test images."


def test_labels_without_readers_and_a_single_system_are_refused(evaluation_set, predict):
    systems = {"A": predict("A"), "B": predict("B", seed=1)}
    with pytest.raises(InputError, match="reader"):
        cxr_compare.reader_verdicts(systems, data=evaluation_set.folder)
    dataset = add_readers(evaluation_set, {"anna": []})
    with pytest.raises(InputError, match="two systems"):
        cxr_compare.reader_verdicts({"A": systems["A"]}, data=dataset.folder)
