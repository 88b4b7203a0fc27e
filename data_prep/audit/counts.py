"""Counts of images: prevalence by group, image sizes, and the leak of a split by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts are loaded when they are first used

from cxr_compare.data_prep.audit.image_checks import OLDEST_YEARS
from cxr_compare.data_prep.audit.image_groups import labels_of_images
from cxr_compare.data_prep.contracts.ids import positions, renumber_codes
from cxr_compare.data_prep.contracts.schemas import ROLES
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.images.border_greys import read_border_greys

_AGE_BANDS = ((0, 5), (5, 18), (18, 40), (40, 60), (60, 80), (80, OLDEST_YEARS + 1))
_TEST_SHARE = 0.2
MISSING = "missing"
_IMPOSSIBLE = "impossible"
_BAND_NAMES = [f"{low} to {high - 1:g}" for low, high in _AGE_BANDS[:-1]] + ["80 and above"]
_ORDERS = {"role": ROLES, "age": [*_BAND_NAMES, _IMPOSSIBLE]}
_VALUES_SHOWN = 20
_EXAMPLES = 4


def count_prevalence(
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[dict[str, Any]]:
    """Count images, patients and positive images by view, sex, age and other groups.

    Args:
        images: Images table: one row for each image, with patient, path and size.
        labels: Label of each image (row, indexed by ``image_id``) for each target (column; findings
            that together make an image positive): 1 positive, 0 negative, NaN unknown.
        splits: By name of a split, the table that gives each image the role train, val, test or
            unused.

    Returns:
        One row for each target, grouping (key ``by``, such as ``sex``) and group, as values for
        JSON, with the prevalence and its 95 % interval.
    """
    groups = {
        "all": pd.Series("all images", index=images.index),
        **{f"role in split {name}": _roles(images, split) for name, split in splits.items()},
        "view": images["view"],
        "sex": images["sex"],
        "age": _age_bands(images["age_years"]),
        "source": images["source"],
    }
    patient = pd.factorize(images["patient_id"])[0]
    names_of_targets = [str(target) for target in labels.columns]
    truths = dict(
        zip(names_of_targets, labels_of_images(labels, images["image_id"]).T, strict=True)
    )
    rows = []
    for by, values in groups.items():
        names, codes = _common_values(values, _ORDERS.get(by.split(" ")[0], ()))
        people = _patients_by_value(codes, patient, len(names))
        n_images = np.bincount(codes, minlength=len(names))
        for target, truth in truths.items():
            labelled = np.bincount(codes[~np.isnan(truth)], minlength=len(names))
            positive = np.bincount(codes[truth == 1], minlength=len(names))
            for number, name in enumerate(names):
                rows.append(
                    {
                        "target": target,
                        "by": by,
                        "value": name,
                        "n_images": int(n_images[number]),
                        "n_patients": int(people[number]),
                        **_share(int(positive[number]), int(labelled[number])),
                    }
                )
    order = list(truths)
    return sorted(rows, key=lambda row: order.index(str(row["target"])))


def expected_image_leak(images: pd.DataFrame) -> dict[str, Any]:
    """Compute how many test images would leak if a split were drawn by image instead of by patient.

    A sibling is another image of the same patient. A test image leaks if it has a sibling in
    training. If ``m`` of ``N`` images are drawn for test, a test image of a patient with ``k``
    images has all its siblings in test with probability ``(m-1)(m-2)...(m-k+1) /
    ((N-1)(N-2)...(N-k+1))``. The expected share of leaking test images is 1 minus the mean of this
    probability over all images. The result is exact.

    Args:
        images: Images table with the column ``patient_id``, one row for each image.

    Returns:
        Share (``expected_share``) and number of leaking test images, and the numbers from which
        they are computed, by name.

    Example:
        >>> images = pd.DataFrame({"patient_id": ["p", "p", "q", "r", "s"]})
        >>> expected_image_leak(images)["expected_share"]
        0.4
    """
    counts = images["patient_id"].value_counts().to_numpy()
    sizes, patients = np.unique(counts, return_counts=True)
    n = int(counts.sum())
    m = min(max(round(_TEST_SHARE * n), 1), n)
    alone = 0.0
    for size, many in zip(sizes.tolist(), patients.tolist(), strict=True):
        steps = np.arange(1, size)
        chance = float(np.prod(np.clip(m - steps, 0, None) / (n - steps)))
        alone += size * many * chance
    share = 1 - alone / n
    return {
        "test_share": _TEST_SHARE,
        "n_test": m,
        "expected_share": share,
        "expected_images": share * m,
        "n_patients": int(patients.sum()),
    }


def describe_images(images: pd.DataFrame, decode: pd.DataFrame) -> dict[str, Any]:
    """Return statistics of image sizes, of the width in mm and of the file formats, for JSON.

    Args:
        images: Images table: one row for each image, with size in px and spacing in mm.
        decode: Decode table: one row for each image, with how its file was decoded; may be empty.

    Returns:
        Dictionary with ``sizes`` and ``field_width_mm`` (None if unknown), ``files`` (numbers by
        property of the files) and ``examples`` (ids of typical and unusual images).
    """
    sized = images[["width", "height"]].dropna().astype("int64")
    facts: dict[str, Any] = {"sizes": None, "field_width_mm": None, "files": {}}
    if len(sized):
        sides = sized["width"] * 100_000 + sized["height"]
        area = sized["width"] * sized["height"]
        values, counts = np.unique(sides, return_counts=True)
        common = int(values[counts.argmax()])
        facts["sizes"] = {
            "smallest": _size(sized, int(area.argmin())),
            "largest": _size(sized, int(area.argmax())),
            "different": len(values),
            "commonest": f"{common // 100_000} x {common % 100_000}",
            "commonest_share": float(counts.max() / len(sized)),
        }
    facts["examples"] = _examples(images, decode)
    if "spacing_col_mm" in images.columns:
        field = (images["spacing_col_mm"] * images["width"].astype("float64")).dropna()
        if len(field):
            quartiles = [float(q) for q in field.quantile([0.25, 0.5, 0.75])]
            facts["field_width_mm"] = {"quartiles": quartiles, "n_known": len(field)}
    for column in ("transfer_syntax", "decoder", "bits", "photometric", "voi", "inverted"):
        if column in decode.columns and len(decode):
            names, codes = _common_values(decode[column])
            counts = np.bincount(codes, minlength=len(names)).tolist()
            facts["files"][column] = dict(zip(names, counts, strict=True))
    return facts


def _examples(images: pd.DataFrame, decode: pd.DataFrame) -> dict[str, list[str]]:
    """Return the ids of the most typical and the most unusual images, each of another patient.

    Images are ranked by their distance from the medians of mean grey, width / height and the greys
    of the border, each divided by its mean distance; the pieces of the border count as one.
    """
    measured = images[["image_id", "patient_id", "width", "height"]].merge(
        decode.reindex(columns=["image_id", "mean_grey", "border_greys"])
    )
    measured = measured.dropna(subset=["mean_grey", "border_greys", "width", "height"])
    if len(measured) < 2 * _EXAMPLES:
        return {}
    shape = (measured["width"] / measured["height"]).to_numpy(dtype="float64")
    facts = np.column_stack(
        [measured["mean_grey"], shape, read_border_greys(measured["border_greys"])]
    )
    away = abs(facts - np.median(facts, axis=0))
    away /= np.maximum(away.mean(axis=0), 1e-9)
    order = np.argsort(away[:, 0] + away[:, 1] + away[:, 2:].mean(axis=1), kind="stable")
    patient = pd.factorize(measured["patient_id"])[0]
    ids = measured["image_id"]
    return {
        name: [*ids.iloc[rows[~pd.Series(patient[rows]).duplicated().to_numpy()][:_EXAMPLES]]]
        for name, rows in (("typical", order), ("oddest", order[::-1]))
    }


def _size(sides: pd.DataFrame, row: int) -> str:
    return f"{sides['width'].iloc[row]} x {sides['height'].iloc[row]}"


def _share(n_positive: int, n_known: int) -> dict[str, Any]:
    low = high = None
    if n_known:  # Wilson's interval takes images for independent
        low, high = scipy.stats.binomtest(n_positive, n_known).proportion_ci(method="wilson")
    return {
        "n_known": n_known,
        "n_positive": n_positive,
        "prevalence": n_positive / n_known if n_known else None,
        "ci_low": low,
        "ci_high": high,
    }


def _roles(images: pd.DataFrame, split: pd.DataFrame) -> pd.Series:
    rows = positions(images["image_id"], split["image_id"])
    return pd.Series(split["role"].array.take(rows, allow_fill=True), index=images.index)


def _age_bands(ages: pd.Series) -> pd.Series:
    edges = [low for low, _ in _AGE_BANDS] + [_AGE_BANDS[-1][1]]
    band = np.searchsorted(edges, ages.to_numpy(dtype="float64", na_value=np.nan), "right")
    names = pd.array([_IMPOSSIBLE, *_BAND_NAMES, _IMPOSSIBLE, None], dtype=TEXT)
    band = np.where(ages.isna(), len(names) - 1, band)
    return pd.Series(names.take(band), index=ages.index)


def _common_values(values: pd.Series, order: Sequence[str] = ()) -> tuple[list[str], np.ndarray]:
    """Return the commonest values, "other" and "missing", and the index of each row's value."""
    codes, uniques = pd.factorize(values)
    texts = [str(value) for value in uniques]
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    rank = {text: position for position, text in enumerate(order)}
    kept = sorted(
        np.argsort(-counts, kind="stable")[:_VALUES_SHOWN],
        key=lambda position: (rank.get(texts[position], len(rank)), texts[position]),
    )
    names = [texts[position] for position in kept]
    index_of_code = np.full(len(texts) + 1, len(names))
    index_of_code[kept] = np.arange(len(names))
    index_of_code[-1] = len(names) + 1  # code -1: missing
    used, indices = renumber_codes(index_of_code[codes])
    all_names = [*names, "other", MISSING]
    return [all_names[value] for value in used], indices


def _patients_by_value(codes: np.ndarray, patient: np.ndarray, n_values: int) -> np.ndarray:
    n_patients = int(patient.max()) + 1 if len(patient) else 0
    has_value = np.zeros((n_values, n_patients), dtype=bool)
    has_value[codes, patient] = True
    return np.count_nonzero(has_value, axis=1)
