"""Images that a figure does not count are named, with their number, where the figure stands."""

import numpy as np
import pandas as pd

import cxr_compare

N = 40
IDS = [f"i{number:02d}" for number in range(N)]
POSITIVE = np.arange(N) % 4 == 0  # 10 of 40
SCORES = pd.Series(np.linspace(0.1, 0.6, N) + 0.3 * POSITIVE, IDS)


def truth(labels=POSITIVE):
    return pd.DataFrame({"image_id": IDS, "label": labels.astype(float), "patient_id": IDS})


def compare(systems, table, **options):
    return cxr_compare.compare(
        systems, truth=table, replicates=100, policy=["threshold=0.5"], **options
    )


def notes_of(result, kind):
    return [note for note in result.compared.comparison.notes if note.kind == kind]


def test_images_left_out_are_counted_with_their_prevalence_and_the_other_system():
    dropped = [*IDS[:4], IDS[8], *IDS[30:32]]  # 0, 4 and 8 are positive: two of these seven
    result = compare(
        {"A": SCORES, "B": SCORES.drop(dropped)}, truth(), images="common", unit="image"
    )
    counts, figures = notes_of(result, "left_out")
    assert "A ran on 40, B ran on 33" in counts.text
    assert "7 of 40 labelled test images" in counts.text
    assert "2 positive (28.6 %), against 8 positive (24.2 %)" in counts.text
    kept = POSITIVE[[0, 1, 2, 3, 8, 30, 31]]
    of_dropped = SCORES[dropped].to_numpy()
    above = of_dropped[kept][:, None] > of_dropped[~kept][None, :]
    assert f"A has an AUROC of {above.mean():.3f} (7 images, 2 positive)" in figures.text
    for note in (counts, figures):
        assert f"Caution: {note.text}" in str(result)


def test_unknown_labels_and_lesions_without_boxes_stand_beside_the_figures(tmp_path):
    labels = POSITIVE.astype(float)
    labels[[1, 2, 3]] = np.nan
    boxed = [IDS[number] for number in np.flatnonzero(POSITIVE)[:7]]
    boxes = pd.DataFrame({"image_id": boxed, "x1": 10, "y1": 10, "x2": 60, "y2": 60})
    predicted = pd.DataFrame(
        {"image_id": IDS, "x1": 12, "y1": 10, "x2": 60, "y2": 60, "score": SCORES.to_numpy()}
    )
    result = compare({"A": predicted, "B": predicted}, truth(labels), boxes=boxes, out=tmp_path)
    shown = str(result)
    assert "3 test images have no known label" in shown
    assert "3 of 10 positive test images lack boxes" in shown
    table = (tmp_path / "table.md").read_text()
    assert "37 images, 10 positive; left out: 3 without a label" in table
    assert "on the 7 of 10 positive images that have boxes" in table
    assert "on the 7 of 10 positive images" in " ".join(result.findings)
    complete = compare({"A": predicted}, truth(), boxes=boxes.assign(image_id=boxed))
    assert "3 of 10 positive" in str(complete)


def test_nothing_is_said_where_nothing_is_missing():
    boxed = [IDS[number] for number in np.flatnonzero(POSITIVE)]
    boxes = pd.DataFrame({"image_id": boxed, "x1": 10, "y1": 10, "x2": 60, "y2": 60})
    predicted = boxes.assign(score=0.9)
    result = compare({"A": predicted, "B": SCORES}, truth(), boxes=boxes)
    assert not notes_of(result, "left_out")
    assert not notes_of(result, "no_boxes")
    assert "have boxes" not in " ".join(result.findings)


def test_the_printed_result_names_the_given_threshold():
    other = SCORES + 0.01 * np.arange(N)[::-1]
    result = compare({"A": SCORES, "B": other / 2}, truth())
    assert any("threshold 0.5" in line for line in str(result).splitlines())
