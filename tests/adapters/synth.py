"""Drawn radiographs as plain values, and copies among them."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.copies import find_copies, fine_detail
from cxr_compare.data_prep.images.decoded_image import pixel_digest
from cxr_compare.data_prep.images.fingerprint import perceptual_hash, squash
from cxr_compare.data_prep.synth import phantom
from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient

__all__ = ["draw_image", "draw_patient"]


def write_phantom(out, *, workers=1, **arguments):
    """Write a phantom without showing progress."""
    arguments = {"prevalence": 0.3, "progress": lambda n: None, **arguments}
    return phantom.write_phantom(out, workers=workers, **arguments)


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
