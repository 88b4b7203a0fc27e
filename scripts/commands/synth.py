"""`cxr synth`: write synthetic chest X-rays with known lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.scripts import console
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command

if TYPE_CHECKING:
    from cxr_compare.data_prep.synth.phantom import PhantomSummary

_PREVALENCE = 0.3  # expected share of images with lesions


@command
def synth(
    out: AnyPath,
    *,
    images: int = 2000,
    size: int = 256,
    seed: int = 0,
) -> PhantomSummary:
    """Write synthetic chest X-rays with known lesions, in RSNA's layout.

    Args:
        out: Folder to write. An unfinished folder of the same arguments is completed.
        images: Number of labelled images.
        size: Side of the square images, in px. The images of the RSNA challenge have 1024.
        seed: Random seed. The same seed gives the same bytes.

    Returns:
        A summary of what the folder holds.

    Raises:
        InputError: The folder holds something else, or synthetic images of other arguments.

    Example:
        cxr synth phantom --images 2000 --size 256 --seed 1
    """
    out = as_path(out)
    from cxr_compare.data_prep.synth.phantom import count_test_images, write_phantom

    with console.track("Drawing images", images + count_test_images(images)) as advance:
        return write_phantom(
            out,
            n_images=images,
            seed=seed,
            size=size,
            prevalence=_PREVALENCE,
            workers=cpu_count(),
            progress=advance,
        )
