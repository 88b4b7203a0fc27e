"""Faults of images and of patients' facts."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.image_checks import check_images, check_people
from cxr_compare.data_prep.images.image_facts import image_facts
from tests.data_prep.audit.small_tables import image_table


def test_impossible_people_are_reported():
    images = image_table("ppqr").assign(
        age_years=[40.0, 41.0, 155.0, -1.0], sex=["M", "F", "M", None], patient_id_source="given"
    )
    found = {p.check: p.examples for p in check_people(images, {}) if p.count}
    assert found == {"age": ("2", "3"), "two_sexes": ("p",)}


def test_laterals_among_frontals_and_small_images_are_reported():
    images = image_table("pqrs").assign(
        view=["PA", "LL", "other", None], width=[900, 900, 100, None], height=900
    )
    images = images.astype({"width": "Int64", "height": "Int64"})
    nothing = pd.DataFrame({"image_id": []})
    found = {p.check: p.examples for p in check_images(images, nothing) if p.count}
    assert found == {"view_lateral": ("1",), "view_other": ("2",), "image_small": ("2",)}
    lateral = check_images(images.assign(view="LL"), nothing)
    assert not [p for p in lateral if p.check == "view_lateral" and p.count]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_an_image_turned_among_upright_ones_is_found_by_its_border(turns):
    rng = np.random.default_rng(0)
    names = [f"i{n:02d}" for n in range(60)]
    chest = np.full((80, 80), 60) + np.linspace(0, 120, 80)[:, None]  # bright below
    chest[:16, 24:56] += 60  # the neck between dark corners
    chests = [np.clip(chest + rng.normal(0, 25, (1, 1)), 0, 255).astype(np.uint8) for _ in names]
    chests = [np.clip(c + rng.normal(0, 12, c.shape), 0, 255).astype(np.uint8) for c in chests]

    def found(images):
        greys = [image_facts(image)["border_greys"] for image in images]
        decode = pd.DataFrame({"image_id": names, "border_greys": greys})
        about = image_table("p" * 60).assign(view="PA", width=80, height=80)
        problems = {p.check: p.examples for p in check_images(about, decode) if p.count}
        return problems.get("image_turned", ())

    assert found(chests) == ()
    assert found([*chests[:7], np.rot90(chests[7], turns).copy(), *chests[8:]]) == ("i07",)
    assert found([*chests[:7], 255 - chests[7], *chests[8:]]) == ("i07",)
