"""Shortcuts: predictions of the label from metadata and image borders alone, as a baseline.

If what is known of an image apart from the lungs, such as the view, predicts the label, a system
may have learned that instead of the disease.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.tables import OLDEST_YEARS
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE, AurocParts, auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.folds import MOST_FOLDS
from cxr_compare.evaluation.truth import Truth, numbers_of

BORDER_GREY = "border_grey_"
"""Start of the names of columns that hold grey levels at the border of the image."""
_PERSON = {"view": "view", "sex": "sex", "age_years": "age"}
FILE = {
    "pixels": "image size",
    "aspect": "aspect ratio",
    "source": "source",
    "transfer_syntax": "transfer syntax",
    "photometric": "photometric interpretation",
    "bits": "bits",
    "spacing_col_mm": "pixel spacing",
}
"""Facts about the files of images, with their names for readers."""
_FEWEST = 20
"""Images of a class, of a category and of a known fact below which nothing is fitted."""
_MOST = 30_000
"""Images on which a model is fitted at most, evenly from all."""


def measured(
    truth: Truth, facts: pd.DataFrame, fold: Integers
) -> Iterator[tuple[str, str, int, AurocParts]]:
    """Yield kind and name of each fact, the images of which it is known, and its AUROC.

    `facts` are what is known of the images beside the columns of the truth, by image id. The border
    is measured on the images whose border is known, everything else on all images.
    """
    for kind, fact, table in _facts(truth, facts):
        is_known = table.notna().any(axis=1).to_numpy()
        used = is_known if kind == "border" else np.ones(len(is_known), dtype=bool)
        positive, fold_of = truth.positive[used], fold[used]
        classes = (positive, ~positive)
        # A class of one fold only leaves a model without an image of it.
        if any(
            in_class.sum() < _FEWEST or len(np.unique(fold_of[in_class])) < 2
            for in_class in classes
        ):
            continue
        scores = _predicted(table[used], positive, fold_of)
        patients = truth.patients[used]
        parts = auroc_parts(positive, scores, patients, truth.n_patients, folds=fold_of)
        if parts is not None:
            yield kind, fact, int(is_known.sum()), parts


def _facts(truth: Truth, facts: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield facts of the images that differ: each by itself, several together, and the border."""
    table = truth.images.drop(columns=facts.columns, errors="ignore").join(facts)
    if "age_years" in table:
        ages = numbers_of(table, ["age_years"])["age_years"]
        table["age_years"] = ages.where(ages.between(0, OLDEST_YEARS))
    if {"width", "height"} <= set(table):
        sides = numbers_of(table, ["width", "height"])
        table = table.assign(pixels=sides.prod(axis=1, skipna=False))
        table = table.assign(aspect=sides["width"] / sides["height"])
    fact_names = [
        name
        for name in (*_PERSON, *FILE)
        if name in table
        and table[name].notna().sum() >= _FEWEST
        # Missing values are a value of their own.
        and table[name].astype("string").fillna("").nunique() > 1
    ]
    for name in fact_names:
        kind = "person" if name in _PERSON else "file"
        yield kind, {**_PERSON, **FILE}[name], table[[name]]
    person = [name for name in fact_names if name in _PERSON]
    border = [str(name) for name in table if str(name).startswith(BORDER_GREY)]
    if border:
        table[border] = table[border].where(table[border].notna().all(axis=1))
    whole = bool(border) and table[border].notna().all(axis=None)
    if len(person) > 1:
        yield "person", " + ".join(_PERSON[name] for name in person), table[person]
    if border:
        yield "border", "outer tenth of the image", table[border]
    if len(fact_names) + whole > max(len(person), 1):
        yield (
            "together",
            "all metadata and borders",
            table[[*fact_names, *(border if whole else ())]],
        )


def _predicted(table: pd.DataFrame, positive: np.ndarray, fold: np.ndarray) -> Floats:
    """Return the log-odds of each image from a model of the images of all other folds."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, SplineTransformer

    names = [str(name) for name in table]
    numbers = [name for name in names if pd.api.types.is_float_dtype(table[name])]
    others = [name for name in names if name not in numbers]
    table = table.assign(**{name: table[name].astype("string").fillna("") for name in others})
    table = table.astype(dict.fromkeys(numbers, np.float64) | dict.fromkeys(others, object))
    # Of a table scikit-learn asks for the names of the columns at each step.
    cells = table[[*numbers, *others]].to_numpy(object if others else np.float64)
    lines = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        SplineTransformer(4, degree=1, knots="quantile"),
    )
    kinds = OneHotEncoder(min_frequency=_FEWEST, handle_unknown="infrequent_if_exist")
    columns = [*range(len(names))]
    first, last = columns[: len(numbers)], columns[len(numbers) :]
    encoded = make_column_transformer((lines, first), (kinds, last)) if others else lines
    model = make_pipeline(encoded, LogisticRegression(max_iter=1000))
    scores = np.empty(len(positive))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold != number)
        rows = rows[:: math.ceil(len(rows) / _MOST)]
        model.fit(cells[rows], positive[rows])
        scores[fold == number] = model.decision_function(cells[fold == number])
    return scores.round(9)


def with_fold_variance(fact: str, estimate: ClusteredEstimate) -> ClusteredEstimate:
    """Add the variance that comes from fitting a model for each of the five folds.

    Each model is fitted on the images of the other folds, so the folds are not independent. Models
    of a fact that says nothing may even turn round, and those of many columns differ. Those of a
    single column that is shown to predict the label, with this variance, rank images alike, and
    none is added.

    Source:
        Nadeau and Bengio 2003: the variance grows by ``folds x test share / training share``.
    """
    if not estimate.error:
        return estimate
    of_models = MOST_FOLDS / (MOST_FOLDS - 1) * estimate.error**2
    wider = replace(estimate, error=float(np.sqrt(estimate.error**2 + of_models)))
    is_alike = wider.ci_low > CHANCE and fact in {*_PERSON.values(), *FILE.values()}
    return estimate if is_alike else wider
