"""Systems in memory that may be compared, with the test images that all of them ran on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.common_images import Images, common_test_images
from cxr_compare.evaluation.compare import EligibleSystems, models_by_label, name_models
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.output import System


def unknown_training(systems: Sequence[str]) -> Note:
    """Return the note on systems whose training images are unknown."""
    verb, new_to = ("was", "it") if len(systems) == 1 else ("were", "them")
    text = f"What {listing(systems)} {verb} trained on is unknown: test images may not be new to "
    return Note("training", f"{text}{new_to}.")


def eligible_in_memory(
    systems: Mapping[str, System | Sequence[System]], truth: LabelledImages, images: Images = "all"
) -> EligibleSystems:
    """Select the test images on which systems of unknown training are compared.

    Models that differ only in the training seed are given as a sequence under one name. With
    `images` ``all``, an InputError is raised if the models ran on different test images; ``common``
    takes the images on which all models ran.
    """
    named = name_models(systems)
    models = models_by_label(named)
    selected, notes = common_test_images(models, truth, images=images)
    notes.append(unknown_training(list(models)))
    recorded = provenance() | {"data_set": {"name": truth.title, "split": truth.split}}
    return EligibleSystems(named, selected, notes, recorded)
