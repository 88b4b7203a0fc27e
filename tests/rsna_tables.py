"""The public tables of the RSNA challenge, as a data set's images and labels."""

from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.ids import TEXT


def read_rsna_tables(shared_data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return images and labels of all 26,684 images of the public RSNA tables."""
    folder = shared_data / "reference_csv"
    headers = pd.read_csv(folder / "kaggle_stage_2_train_images_dicom_headers.csv.gz")
    mapping = pd.read_csv(folder / "rsna_to_nih.csv", dtype=TEXT).set_index("patientId")
    labels = pd.read_csv(folder / "stage_2_train_labels.csv").groupby("patientId")["Target"].max()
    headers = headers.set_index("PatientID").reindex(labels.index)
    images = pd.DataFrame(
        {
            "image_id": labels.index,
            "patient_id": "nih:" + mapping["nih_image"].str[:8].reindex(labels.index).to_numpy(),
            "view": headers["ViewPosition"].to_numpy(),
            "sex": headers["PatientSex"].to_numpy(),
            "age_years": headers["PatientAge"].astype("float64").to_numpy(),
        }
    )
    return images, labels.astype("float64").to_frame("opacity")
