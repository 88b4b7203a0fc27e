"""Verdicts by the labels of single readers."""

from functools import partial

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions
from cxr_compare.studies.readers.reader_verdicts import evaluate_by_readers, verdict_sentence
from tests.studies.readers.readers_of_data_set import add_readers


def test_readers_labels_evaluate_the_test_images_alone_and_compare_the_verdicts(
    evaluation_set, predict
):
    systems = {"A": predict("A", skill=3.0), "B": predict("B", seed=1, skill=0.5)}
    test = evaluation_set.image_ids("test")
    dataset = add_readers(
        evaluation_set, {"same": [], "opposed": list(evaluation_set.images["image_id"])}
    )
    test_set = LabelledSplit(dataset, dataset.target())
    evaluate = partial(compare_predictions, systems, replicates=200)
    evaluated = evaluate_by_readers(evaluate(test_set), test_set, evaluate)
    rows = pd.DataFrame(evaluated.by_reader).set_index("labels_of")
    assert rows.loc[["reference", "same"], "same_verdict"].all()
    assert rows.loc["same", "estimate"] == rows.loc["reference", "estimate"]
    assert rows.loc["opposed", "estimate"] == pytest.approx(-rows.loc["reference", "estimate"])
    assert not rows.loc["opposed", "same_verdict"]
    assert (rows["images"] == len(test)).all()
    caution = evaluated.answer.cautions[-1]
    assert caution.kind == "reference"
    assert caution.text == verdict_sentence("opposite_verdict", ["opposed"])
    weak = {"A": predict("A2", skill=0.2), "B": predict("B2", seed=1, skill=0.2)}
    evaluate = partial(compare_predictions, weak, replicates=200)
    undecided = evaluate_by_readers(evaluate(test_set), test_set, evaluate)
    note = undecided.notes[-1]
    rows = [row["estimate"] for row in undecided.by_reader]
    assert note.kind == "readers"
    assert note.text.startswith("Nothing is shown by the labels of opposed and same")
    assert note.text.endswith(f"from {number(min(rows))} to {number(max(rows))}.")
    val = dataset.with_labels_of("opposed", test).labels(dataset.target())[dataset.image_ids("val")]
    assert val.equals(dataset.labels(dataset.target())[val.index])


def test_labels_by_which_nothing_is_shown_are_no_caution_because_of_sampling_error(
    evaluation_set, predict
):
    half = list(evaluation_set.images["image_id"])[::2]
    dataset = add_readers(evaluation_set, {"vague": half})
    test_set = LabelledSplit(dataset, dataset.target())
    systems = {"A": predict("A", skill=3.0), "B": predict("B", seed=1, skill=0.5)}
    evaluate = partial(compare_predictions, systems, replicates=200)
    evaluated = evaluate_by_readers(evaluate(test_set), test_set, evaluate)
    assert [row["higher"] for row in evaluated.by_reader] == ["A", "not shown"]
    note = evaluated.notes[-1]
    assert note.kind == "readers"
    assert note.text == verdict_sentence("other_verdict", ["vague"])


def test_readers_without_a_test_image_have_a_note(evaluation_set, predict):
    dataset = add_readers(evaluation_set, {"anna": []})
    path = dataset.folder / "findings.parquet"
    test = dataset.image_ids("test")
    findings = read_table(path, "findings")
    own = (findings["reader"] == "anna") & findings["image_id"].isin(test)
    write_table(findings[~own], path, "findings")
    dataset = DataSet.open(dataset.folder)
    evaluate = partial(compare_predictions, {"A": predict("A", skill=3.0)}, replicates=200)
    evaluated = evaluate_by_readers(
        evaluate(LabelledSplit(dataset, dataset.target())),
        LabelledSplit(dataset, dataset.target()),
        evaluate,
    )
    assert evaluated.notes[-1].text == "No reader of the data set has labelled the test images."
