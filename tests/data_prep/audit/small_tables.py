"""Small tables of images and roles."""

import pandas as pd


def image_table(patients: str) -> pd.DataFrame:
    """Return images 0, 1, ... of the named patients."""
    images = pd.DataFrame(
        {"image_id": [str(n) for n in range(len(patients))], "patient_id": list(patients)}
    )
    return images.assign(patient_id_source="given")


def split_table(*roles: str) -> pd.DataFrame:
    """Return the roles of images 0, 1, ..."""
    return pd.DataFrame({"image_id": [str(n) for n in range(len(roles))], "role": roles})
