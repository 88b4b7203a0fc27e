"""Drawn radiographs as plain values, and copies among them."""

from unittest import mock

import numpy as np
import pandas as pd

from cxr_compare.data_prep.copies import find_copies, fine_detail
from cxr_compare.data_prep.images.decoded_image import pixel_digest
from cxr_compare.data_prep.images.fingerprint import perceptual_hash, squash
from cxr_compare.data_prep.synth import lesions, rendering
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient

__all__ = ["draw_image", "draw_patient", "write_phantom"]


def without_lesions(patient, number, size):
    """Draw the same image without its lesions."""
    with mock.patch.object(rendering, "add_lesions", return_value=[]):
        return draw_image(patient, number, size).pixels


def one_strong_lesion(monkeypatch):
    """Make each image that has lesions have one, well above the noise."""
    monkeypatch.setattr(lesions, "_LESIONS_PER_IMAGE", (1.0, 0.0, 0.0))
    monkeypatch.setattr(lesions, "CONTRAST_TO_NOISE", (8.0, 18.0))


def copies(shown):
    """Pairs of images that are taken for copies, of greys by name."""
    decode = pd.DataFrame(
        {
            "image_id": list(shown),
            "pixel_sha256": [pixel_digest(pixels) for pixels in shown.values()],
            "perceptual_hash": [perceptual_hash(pixels) for pixels in shown.values()],
        }
    )
    return find_copies(decode, shown.__getitem__)


def likeness(shown):
    """Correlation of the fine detail of each pair of images."""
    details = np.stack([fine_detail(squash(pixels, 128)).ravel() for pixels in shown])
    return (details @ details.T)[np.triu_indices(len(details), 1)]
