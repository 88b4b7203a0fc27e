"""Faults of images and of patients' facts."""

from cxr_compare.data_prep.audit.image_checks import check_images, check_people
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
    found = {p.check: p.examples for p in check_images(images) if p.count}
    assert found == {"view_lateral": ("1",), "view_other": ("2",), "image_small": ("2",)}
    lateral = check_images(images.assign(view="LL"))
    assert not [p for p in lateral if p.check == "view_lateral" and p.count]
