"""The images page as its script reads it."""

import json

from cxr_compare.evaluation.report.images_page import write_images_page

TITLES = {"title": "A and B", "finding": "Lung opacity", "data_name": "hand-made"}


def write_images(comparison, image_set, out, **options):
    """Write the images page and return the data that its script reads."""
    rest = {"titles": TITLES, "drawn": {}, "gaps": {}, **options}
    out.mkdir(exist_ok=True)
    write_images_page(comparison, image_set, out, **rest)
    text = (out / "images.js").read_text()
    return json.loads(text.removeprefix("const IMAGES = ").removesuffix(";\n"))
