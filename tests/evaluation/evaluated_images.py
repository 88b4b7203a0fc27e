"""Evaluated images of tests that need no data set."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.replicates import FiguresOfWeights, replicates


def evaluated_images(y_true, patients=None, **known):
    """Images by label, a patient each unless said; `known`: further fields, else no boxes."""
    n = len(y_true)
    patients = np.arange(n) if patients is None else np.asarray(patients)
    ids = known.pop("image_ids", pd.Index([f"i{number:04d}" for number in range(n)]))
    names = [f"p{number:06d}" for number in range(int(patients.max()) + 1)]
    images = LabelledImages.from_arrays(ids, y_true, [names[patient] for patient in patients])
    if "x_class" in known:
        kinds = images.images.assign(x_class=np.asarray(known.pop("x_class")))
        images = replace(images, images=kinds)
    if "is_boxed" in known:
        known["boxes_trusted"] = ids[known.pop("is_boxed")]
    return replace(images, patient_ids=pd.Index(names), **known)


def model_of(images, scores, thresholds=None, *, validation=None, boxes=None, **choices):
    """A model with these scores, or a detector with these boxes; `choices`: more of `Choices`."""
    if boxes is None:
        output = Output.from_scores(images.image_ids, scores)
    else:
        output = Output.from_boxes(images.image_ids, boxes)
    chosen = Choices(
        target="finding",
        chosen_on={},
        thresholds=thresholds or {},
        chosen_scores=validation,
        **choices,
    )
    return EvaluatedModel("A", images, output, chosen)


def figures_of(models, resamples):
    """The figures and differences of models, with their intervals on these resamples."""
    return compute_figures("finding", models, replicates(models, resamples), resamples)


def once(model):
    """The figures of the images themselves, by key."""
    return {key: values[0] for key, values in FiguresOfWeights(model).once.items()}


def row_of(table, **keys):
    """The only row of a table that has these values; `system` "A - B" is a difference."""
    if "system" in keys and "first" in table:
        keys["first"], _, keys["second"] = keys.pop("system").partition(" - ")
    chosen = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(chosen) == 1, keys
    return chosen.iloc[0]
