"""How well the label can be guessed without looking at the lungs."""

from __future__ import annotations

import pandas as pd
from scipy.stats import rankdata

from data_prep.audit_problem import Problem

# A system has to beat these to have learned anything from the picture.
SHORTCUT_AUROC = 0.65
_PERSON = ("view", "sex", "age_years")
_FILE = ("size", "source", "transfer_syntax", "photometric", "bits", "spacing_col_mm")
_MIN_IMAGES = 20


def check_shortcuts(images: pd.DataFrame, labels: pd.DataFrame) -> list[Problem]:
    """Report facts about the person or the file that alone predict a target.

    Args:
        images: The images table joined with the decode table.
        labels: One column a target (1.0, 0.0, NaN), indexed by ``image_id``.

    Returns:
        ``info`` for facts about the person, which may be medicine; ``warning`` for facts about
        the file, which are not.
    """
    facts = images.set_index("image_id")
    known = facts["width"].notna() & facts["height"].notna()
    facts["size"] = (facts["width"].astype("str") + "x" + facts["height"].astype("str")).where(
        known
    )
    problems = []
    for target in labels.columns:
        truth = labels[target].reindex(facts.index)
        for column in (c for c in (*_PERSON, *_FILE) if c in facts.columns):
            auroc = predictive_auroc(facts[column], truth)
            if auroc is None or auroc < SHORTCUT_AUROC:
                continue
            text = f"'{column}' alone predicts '{target}' with AUROC {auroc:.3f}"
            if column in _PERSON:
                text += ": judge systems on its subgroups too"
                problems.append(Problem("shortcut_person", "info", text, int(truth.notna().sum())))
            else:
                text += ": a system may learn the kind of file instead of the disease"
                problems.append(Problem("shortcut_file", "warning", text, int(truth.notna().sum())))
    return problems


def predictive_auroc(values: pd.Series, labels: pd.Series) -> float | None:
    """AUROC of a label guessed from one fact alone.

    Args:
        values: Categories (each predicts its share of positives; missing is one, and those with
            fewer than 20 images are pooled) or numbers (missing counts as the mean).
        labels: 1.0, 0.0 or NaN (left out), same index.

    Returns:
        0.5 to 1, or None with fewer than 20 positive, negative or known images.

    Example:
        >>> labels = pd.Series([1.0] * 20 + [0.0] * 20)
        >>> predictive_auroc(pd.Series(["AP"] * 20 + ["PA"] * 20), labels)
        1.0
    """
    judged = labels.notna()
    truth = labels[judged].to_numpy() == 1
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    chosen = values[judged]
    if min(n_positive, n_negative, int(chosen.notna().sum())) < _MIN_IMAGES:
        return None
    if pd.api.types.is_numeric_dtype(chosen):
        scores = chosen.astype("float64").fillna(chosen.mean()).to_numpy()
    else:
        names = chosen.astype("str").fillna("missing")
        # Rare categories would each predict their own few images by chance.
        common = names.map(names.value_counts()) >= _MIN_IMAGES
        groups = names.where(common, "rare").to_numpy()
        scores = pd.Series(truth).groupby(groups).transform("mean").to_numpy()
    ranks = rankdata(scores)
    area = (ranks[truth].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
    return float(max(area, 1 - area))
