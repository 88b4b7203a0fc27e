"""`cxr synth`: synthetic chest X-rays with known lesions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ContrastChoice(StrEnum):
    """How well the lesions can be seen."""

    MIXED = "mixed"
    HIGH = "high"


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or one to go on with.")],
    images: Annotated[int, typer.Option(help="Number of labelled images.")] = 2000,
    size: Annotated[int, typer.Option(help="Side of an image, px; 1024 is the challenge's.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    contrast: Annotated[
        ContrastChoice,
        typer.Option(help="mixed: lesions from below to well above the noise; high: only clear."),
    ] = ContrastChoice.MIXED,
    prevalence: Annotated[float, typer.Option(help="Expected share of images with lesions.")] = 0.3,
    flaws: Annotated[
        bool, typer.Option("--flaws", help="Also plant duplicates, leaks, bad boxes and files.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write synthetic chest X-rays with known lesions, in the RSNA challenge's layout.

    Example: cxr synth phantom --images 2000 --size 256 --seed 1
    """
    from dataclasses import asdict

    from data_prep.contracts.words import counted
    from data_prep.contracts.workers import cpu_count
    from data_prep.synth.phantom import count_test_images, write_phantom
    from scripts import console
    from scripts.next_steps import show_next

    with console.progress("Drawing images", images + count_test_images(images)) as advance:
        summary = write_phantom(
            out,
            n_images=images,
            seed=seed,
            size=size,
            contrast=contrast.value,
            prevalence=prevalence,
            flaws=flaws,
            workers=workers or cpu_count(),
            progress=advance,
        )
    if summary.already_complete:
        console.say(f"{out}: already complete, nothing to do")
    console.say(
        f"{counted(summary.n_images, 'image')} of {counted(summary.n_patients, 'patient')}, "
        f"{summary.n_positive} with lesions ({counted(summary.n_boxes, 'box')}), "
        f"{summary.n_test_images} unlabelled"
        + (f", {counted(summary.n_flaws, 'planted flaw')}" if summary.n_flaws else "")
    )
    show_next(out)
    if as_json:
        console.emit_json(asdict(summary))
