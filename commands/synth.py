"""`cxr synth`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.commands import console
from cxr_compare.commands.options import AnyPath
from cxr_compare.data_prep.base.errors import require_extra

if TYPE_CHECKING:
    from cxr_compare.data_prep.synth.phantom import PhantomSummary
else:
    PhantomSummary = Any  # the help needs no pandas

_PREVALENCE = 0.3


def synth(out: AnyPath, /, *, images: int = 2000, size: int = 256, seed: int = 0) -> PhantomSummary:
    """Draw synthetic chest X-rays with known lesions, in the layout of RSNA's challenge.

    Args:
        out: Folder to make.
        images: Number of labelled images.
        size: Side of an image, px.
        seed: Random seed; the same seed gives the same bytes.
    """
    require_extra("synth", "images")
    from cxr_compare.data_prep.base.provenance import cpu_count
    from cxr_compare.data_prep.synth.phantom import count_test_images, write_phantom

    with console.track("Drawing images", images + count_test_images(images)) as advance:
        return write_phantom(
            Path(out),
            n_images=images,
            seed=seed,
            size=size,
            prevalence=_PREVALENCE,
            workers=cpu_count(),
            progress=advance,
        )
