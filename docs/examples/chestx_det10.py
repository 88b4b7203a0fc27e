"""Write the patients of ChestX-Det10, its published split and one by patient, beside its clone."""

import json
from subprocess import check_output

import pandas as pd

rows = []
for role in ("train", "test"):
    first, today = (
        json.loads(
            check_output(["git", "-C", "ChestX-Det10-Dataset", "show", f"{commit}:{role}.json"])
        )
        for commit in ("117ba79b", "c535e9a3")
    )
    for nih, entry in zip(first, today, strict=True):
        assert (nih["syms"], nih["boxes"]) == (entry["syms"], entry["boxes"])
        rows.append((entry["file_name"][:-4], nih["file_name"], nih["file_name"][:8], role))
images = pd.DataFrame(rows, columns=["image_id", "nih_name", "patient_id", "role"])
test = images["role"] == "test"
mended = images[test | ~images["patient_id"].isin(images.loc[test, "patient_id"])]
images.to_csv("map.csv", index=False)
images[["image_id", "role"]].to_csv("published.csv", index=False)
mended[["image_id", "role"]].to_csv("mended.csv", index=False)
