"""Labels that differ in a sign, and labels that name no finding, in every layout of labels."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import SourceTables
from PIL import Image

from tests.adapters.commands import cxr
from tests.data_prep.sources.answers import reader, reasons, states, write_files

SIDE = 100
BOX = (10, 20, 40, 60)
Labels = list[str]


def table(labels: Labels, names: Labels) -> dict[str, str]:
    text = io.StringIO()
    csv.writer(text).writerows([("file", "label"), *zip(names, labels, strict=True)])
    return {"labels.csv": text.getvalue()}


def coco(labels: Labels, names: Labels) -> dict[str, str]:
    classes = sorted(set(labels))
    x1, y1, x2, y2 = BOX
    content = {
        "images": [
            {"id": n, "file_name": name, "width": SIDE, "height": SIDE}
            for n, name in enumerate(names)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes)],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": classes.index(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for n, label in enumerate(labels)
        ],
    }
    return {"labels.json": json.dumps(content)}


def yolo(labels: Labels, names: Labels) -> dict[str, str]:
    classes = sorted(set(labels))
    files = {"data.yaml": json.dumps({"names": classes})}
    for name, label in zip(names, labels, strict=True):
        files[name.replace(".png", ".txt")] = f"{classes.index(label)} 0.25 0.4 0.3 0.4\n"
    return files


def voc(labels: Labels, names: Labels) -> dict[str, str]:
    edges = "".join(
        f"<{side}>{edge}</{side}>"
        for side, edge in zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True)
    )
    return {
        name.replace(".png", ".xml"): f"<annotation><filename>{name}</filename><object>"
        f"<name><![CDATA[{label}]]></name><bndbox>{edges}</bndbox></object></annotation>"
        for name, label in zip(names, labels, strict=True)
    }


def cvat(labels: Labels, names: Labels) -> dict[str, str]:
    x1, y1, x2, y2 = BOX
    images = "".join(
        f'<image id="{n}" name="{name}" width="{SIDE}" height="{SIDE}"><box '
        f'label={quoteattr(label)} xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/></image>'
        for n, (name, label) in enumerate(zip(names, labels, strict=True))
    )
    return {"annotations.xml": f"<annotations>{images}</annotations>"}


def label_studio(labels: Labels, names: Labels) -> dict[str, str]:
    def task(name: str, label: str) -> object:
        value = {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": [label]}
        sides = {"original_width": SIDE, "original_height": SIDE}
        result = {"type": "rectanglelabels", "value": value, **sides}
        return {
            "data": {"image": name},
            "annotations": [{"completed_by": 1, "result": [result]}],
        }

    return {"labels.json": json.dumps(list(map(task, names, labels)))}


def labelme(labels: Labels, names: Labels) -> dict[str, str]:
    x1, y1, x2, y2 = BOX
    return {
        name.replace(".png", ".json"): json.dumps(
            {
                "shapes": [
                    {"label": label, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}
                ],
                "imagePath": name,
                "imageWidth": SIDE,
                "imageHeight": SIDE,
            }
        )
        for name, label in zip(names, labels, strict=True)
    }


def via(labels: Labels, names: Labels) -> dict[str, str]:
    shape = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 40}
    return {
        "labels.json": json.dumps(
            {
                name: {
                    "filename": name,
                    "file_attributes": {},
                    "regions": [{"shape_attributes": shape, "region_attributes": {"label": label}}],
                }
                for name, label in zip(names, labels, strict=True)
            }
        )
    }


LAYOUTS: dict[str, Callable[[Labels, Labels], dict[str, str]]] = {
    "table": table,
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "cvat": cvat,
    "label-studio": label_studio,
    "labelme": labelme,
    "via": via,
}


def read(folder: Path, labels: Labels, layout: str = "table", **options: object) -> SourceTables:
    """Tables of images 00, 01, ... with a label each."""
    names = [f"{number:02}.png" for number in range(len(labels))]
    for name in names:
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(folder / name)
    write_files(folder, LAYOUTS[layout](labels, names))
    if layout == "table":
        options["labels"] = (folder / "labels.csv",)
    return reader(layout)(folder, **options)


def counts(tables: SourceTables) -> dict[str, tuple[int, int]]:
    """Images with and without each finding."""
    found = list(states(tables).items())
    return {
        finding: tuple(
            sum(name == finding and state == of for (_, name), state in found)
            for of in ("present", "absent")
        )
        for finding in sorted({name for (_, name), _ in found})
    }


@pytest.mark.parametrize(
    ("layout", "positive", "negative"),
    [("table", "TB", "!TB"), *((layout, "TB+", "TB-") for layout in LAYOUTS)],
)
def test_opposite_labels_are_one_finding_present_and_absent(tmp_path, layout, positive, negative):
    tables = read(tmp_path, [positive] * 3 + [negative] * 2, layout)
    assert counts(tables) == {"tb": (3, 2)}
    assert set(tables.boxes["image_id"]) <= {"00", "01", "02"}


@pytest.mark.parametrize(
    ("layout", "labels", "shown"),
    [
        *((layout, [">=3mm", "<3mm"], [">=3mm", "<3mm"]) for layout in LAYOUTS),
        ("table", ["TB-", "effusion"], ["TB-"]),
        ("coco", ["-1", "mass"], ["-1"]),
        ("voc", ["0.7", "mass"], ["0.7"]),
        ("yolo", ['{"choices": ["Mass"]}', "mass"], ["Label Studio"]),
    ],
)
def test_labels_that_lose_their_meaning_in_a_name_are_shown(tmp_path, layout, labels, shown):
    with pytest.raises(InputError) as caught:
        read(tmp_path, labels * 2, layout)
    assert all(text in str(caught.value) for text in shown)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mass", "mass?"),
        ("mass", "mass-"),
        ("TB+/HIV-", "TB-/HIV+"),
        ("nodule \u2265 3", "nodule <3"),
    ],
)
def test_two_labels_of_one_name_are_both_shown(tmp_path, one, other):
    with pytest.raises(InputError) as caught:
        read(tmp_path, [one, other])
    assert f"'{one}'" in str(caught.value)
    assert f"'{other}'" in str(caught.value)


@pytest.mark.parametrize("n_negative", [1, 11])
def test_one_opposite_label_of_twelve_is_read_as_all_are(tmp_path, n_negative):
    tables = read(tmp_path, ["COVID (+)"] * (12 - n_negative) + ["COVID (-)"] * n_negative)
    assert counts(tables) == {"covid": (12 - n_negative, n_negative)}


@pytest.mark.parametrize(
    ("positive", "negative", "finding"),
    [
        ("TB positive", "tb-negative", "tb"),
        ("TB +", "TB \N{MINUS SIGN}", "tb"),
        ("TB+", "TB\N{EN DASH}", "tb"),
        ("silicosis", "not silicosis", "silicosis"),
        ("Épanchement (+)", "E\N{COMBINING ACUTE ACCENT}panchement (-)", "épanchement"),
        ("結核(+)", "結核(-)", "結核"),
        ("結核陽性", "結核陰性", "結核"),
    ],
)
def test_signs_of_any_script_are_read(tmp_path, positive, negative, finding):
    assert counts(read(tmp_path, [positive] * 3 + [negative] * 2)) == {finding: (3, 2)}


@pytest.mark.parametrize(
    ("one", "other", "findings"),
    [
        ("Lung Opacity", "lung_opacity", {"lung_opacity"}),
        ("Nodule/Mass", "nodule mass", {"nodule_mass"}),
        ("COVID-19", "COVID\N{EN DASH}19", {"covid_19"}),
        ("T2", "T-2", {"t2", "t_2"}),
        ("COVID-19", "Non-COVID", {"covid_19", "non_covid"}),
        ("normal", "not normal", {"not_normal"}),
        ("TB negative", "effusion", {"tb_negative", "effusion"}),
        ("['Mass', 'Nodule']", '["Mass"]', {"mass", "nodule"}),
    ],
)
def test_spellings_of_one_name_and_other_names_stay_what_they_are(tmp_path, one, other, findings):
    assert {name for _, name in states(read(tmp_path, [one, other]))} == findings


def test_several_labels_in_a_cell_are_read_one_by_one(tmp_path):
    tables = read(tmp_path, ["TB+;Mass", "TB-|Mass", "['TB-', 'Mass']"])
    assert counts(tables) == {"mass": (3, 0), "tb": (1, 2)}


@pytest.mark.parametrize(
    "cells",
    [
        ["Mass", "Nodule", "Mass, Nodule"],
        ["Mass", "Nodule", "Mass/Nodule"],
        ["Mass", "Nodule", "Mass and Nodule"],
        ["Mass", "Nodule", "('Mass', 'Nodule')"],
        ["Cavity, Scar", "Scar, Cavity, Bulla", "Bulla, Cavity"],
        ["normal", "normal", "Atelectasis, Effusion"],
    ],
)
def test_a_label_that_lists_others_is_asked_about(tmp_path, cells):
    with pytest.raises(InputError, match="'label'"):
        read(tmp_path, cells)


def test_a_name_of_several_words_stays_one_finding(tmp_path):
    tables = read(tmp_path, ["Nodule/Mass", "Pneumonia, unspecified", "Edema and cough"])
    assert set(counts(tables)) == {"nodule_mass", "pneumonia_unspecified", "edema_and_cough"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_doubtful_labels_are_no_findings_of_their_own(tmp_path, layout):
    tables = read(tmp_path, ["mass", "possible mass", "uncertain", "nodule"], layout)
    found = states(tables)
    assert found.pop(("01", "mass")) == "uncertain"
    assert {finding for _, finding in found} == {"mass", "nodule"}
    assert {image for image, _ in found} == {"00", "01", "03"}
    with pytest.raises(InputError, match=r"mass\?"):
        read(tmp_path, ["mass?", "nodule"], layout)


def test_controls_show_no_finding(tmp_path):
    assert counts(read(tmp_path, ["disease", "disease", "control"])) == {"disease": (2, 1)}


@pytest.mark.parametrize(
    "cells",
    [
        ['[{"x": 10.0, "rectanglelabels": ["nodule"]}]', "[]"],
        ['{"objects":[{"title":"nodule"}],"classifications":[]}', "mass"],
        ["20 30 60 34", "mass"],
        ["0 200 300 400 500;0 10 20 30 40", "mass"],
        ["mass", "0,7"],
        ["opacity 1 789.28 582.43 1815.94 2499.73", "none 1 0 0 1 1"],
    ],
)
def test_a_column_of_other_content_than_names_is_refused(tmp_path, cells):
    with pytest.raises(InputError, match="'label'"):
        read(tmp_path, cells * 2)


def test_names_of_numbered_classes_are_taken_together(tmp_path):
    names = ("TB+", "TB-")
    assert counts(read(tmp_path, ["0", "0", "1"], class_names=names)) == {"tb": (2, 1)}
    with pytest.raises(InputError, match=r">=3mm.*<3mm"):
        read(tmp_path, ["0", "0", "1"], class_names=(">=3mm", "<3mm"))


def test_columns_of_findings_with_one_name_are_shown(tmp_path):
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "00.png")
    write_files(tmp_path, {"labels.csv": "file,TB (+),TB (-)\n00.png,1,0\n"})
    with pytest.raises(InputError, match=r"TB \(\+\).*TB \(-\)"):
        reader("table")(tmp_path, labels=(tmp_path / "labels.csv",))


def test_an_image_with_boxes_of_both_opposites_is_left_out(tmp_path):
    names = ["00.png", "01.png", "02.png"]
    content = json.loads(coco(["TB+", "TB+", "TB-"], names)["labels.json"])
    content["annotations"].append({**content["annotations"][2], "id": 9, "image_id": 1})
    for name in names:
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / name)
    tables = reader("coco")(write_files(tmp_path, {"labels.json": json.dumps(content)}))
    assert states(tables) == {("00", "tb"): "present", ("02", "tb"): "absent"}
    assert set(reasons(tables)) == {"01.png"}


def test_compare_reads_signs_of_the_truth_and_asks_about_those_of_results(tmp_path, capsys):
    signs = [sign for sign in ("TB+", "TB-") for _ in range(6)]
    truth = pd.DataFrame({"image_id": [f"{n:02}" for n in range(12)], "label": signs})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    scores = truth[["image_id"]].assign(score=np.linspace(1, 0, 12))
    scores.to_csv(tmp_path / "a.csv", index=False)
    call = ("compare", tmp_path / "a.csv", "--truth", tmp_path / "truth.csv")
    assert cxr(*call, "--replicates", "100") == 0
    assert "TB-" in capsys.readouterr().err
    scores.assign(finding=signs).to_csv(tmp_path / "a.csv", index=False)
    assert cxr(*call) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "TB+" in line
    assert "TB-" in line
    truth.assign(label=["0.9", "0.1"] * 6).to_csv(tmp_path / "truth.csv", index=False)
    assert cxr(*call) == 2
    assert "0.9" in capsys.readouterr().err.splitlines()[-1]
