"""Content of a folder: `cxr show`, `cxr overlay`, and tables that are not its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from cxr_compare import DataSet, InputError
from tests.adapters import folders
from tests.adapters.sets import put_table, table_set

KINDS = {
    "data set": lambda world: world.data,
    "run": lambda world: world.run("classifier"),
    "export": lambda world: world.export("classifier"),
    "predictions": lambda world: world.predictions("classifier"),
    "phantom": lambda world: world.xrays,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_folder_is_shown_by_its_kind_with_its_facts_on_lines(kind, world):
    folder = KINDS[kind](world)
    shown = cxr_compare.show(folder)
    facts = shown.to_dict()
    assert facts["kind"] == kind
    first, *lines = str(shown).splitlines()
    assert first.startswith(f"{folder}: ")
    named = [name for name, value in facts.items() if value is not None and name != "kind"]
    shown_names = [line.partition(":")[0].strip() for line in lines]
    if kind == "data set":  # two tables and the lines on what was read
        assert named[-2:] == ["targets", "read"]
        named = named[:-2]
        assert [line.strip() for line in lines][-len(facts["read"]) :] == facts["read"]
        shown_names = shown_names[: len(named)]
    assert shown_names == named
    assert "np." not in str(shown)
    json.dumps(facts)  # plain values


def test_numbers_of_a_data_set_are_those_of_its_tables(world):
    facts = cxr_compare.show(world.data).to_dict()
    data = DataSet.open(world.data)
    labels = data.labels(data.target())
    (name,) = data.targets
    assert facts["images"] == len(data.images)
    unknown = data.images["patient_id_source"] == "assumed_image"
    assert facts["images of unknown patients"] == unknown.sum() > 0
    assert facts["patients"] == data.images.loc[~unknown, "patient_id"].nunique()
    assert facts["targets"][name] == {
        "present": int((labels == 1).sum()),
        "absent": int((labels == 0).sum()),
        "unknown": int(labels.isna().sum()),
        "uncertain": 0,
        "boxes": len(data.boxes),
    }
    assert facts["split default"] == data.split()["role"].value_counts().to_dict()


def test_a_report_is_shown_by_its_answer_and_its_table(world):
    shown = cxr_compare.show(world.tables_report)
    result = cxr_compare.Result.open(world.tables_report)
    assert str(shown) == str(result)
    assert all(f"\n{system} " in str(shown) for system in result.systems)
    assert shown.to_dict() == result.to_dict()


@pytest.fixture(scope="module")
def drawn(world, tmp_path_factory):
    """Overlays of both systems on one positive and one negative test image."""
    data = DataSet.open(world.data)
    labels = data.labels(data.target()).reindex(data.image_ids("test"))
    images = [labels.index[labels == value][0] for value in (1, 0)]
    out = tmp_path_factory.mktemp("overlay") / "out"
    systems = [world.predictions("detector"), f"B={world.predictions('classifier')}"]
    shown = cxr_compare.overlay(*systems, data=world.data, out=out, image=images)
    return out, images, shown.to_dict()


def test_an_image_is_named_by_its_id_or_by_its_file(world, tmp_path):
    data = Path(shutil.copytree(world.data, tmp_path / "data"))
    opened = DataSet.open(data)
    image = opened.image_ids("test")[0]
    path = Path(opened.images.set_index("image_id").at[image, "path"])
    drawn = []
    for number, name in enumerate((image, path.stem, path.name, str(path))):
        made = cxr_compare.overlay(
            world.predictions("classifier"), data=data, out=tmp_path / str(number), image=name
        )
        drawn.append(Path(made.to_dict()[0]).read_bytes())
    assert drawn == drawn[:1] * 4
    page = (tmp_path / "0/index.html").read_text()
    assert f'"name":"{path.name}"' in page


def test_the_truth_is_drawn_on_positive_images_alone(drawn, world, tmp_path):
    """With other true boxes the picture of the positive image changes, the other does not."""
    _, images, _ = drawn
    data = shutil.copytree(world.data, tmp_path / "data")
    boxes = DataSet.open(data).boxes
    boxes.loc[boxes["image_id"] == images[0], ["x1", "y1"]] *= 0.5
    put_table(boxes, data / "boxes.parquet", "boxes")
    predictions = world.predictions("classifier")
    pictures = []
    for number, folder in enumerate((world.data, data)):
        made = cxr_compare.overlay(
            predictions, data=folder, out=tmp_path / str(number), image=images
        )
        pictures.append([np.asarray(Image.open(file)) for file in made.to_dict()])
    same = [np.array_equal(*pair) for pair in zip(*pictures, strict=True)]
    assert same == [False, True]


REFUSED = {
    "no pixels": "data",
    "unknown image": "nobody",
    "ran on none": "image",
    "one name": "'A'",
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_overlay_that_cannot_be_drawn_is_refused(case, world, tmp_path):
    data, systems = world.data, [world.predictions("classifier")]
    options = {"image": [DataSet.open(world.data).image_ids("test")[0]]}
    if case == "no pixels":
        data = table_set(tmp_path, ["a", "b"], {"mass": [1, 0]}, split=["val", "test"])
    elif case == "unknown image":
        options["image"] = ["nobody"]
    elif case == "ran on none":
        options["image"] = [DataSet.open(world.data).image_ids("train")[0]]
    else:
        systems = [f"A={system}" for system in systems * 2]
    with pytest.raises(InputError, match=REFUSED[case]):
        cxr_compare.overlay(*systems, data=data, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# Tables of another folder

PARTS = {
    "data set": lambda world: world.data,
    "predictions": lambda world: world.predictions("detector"),
    "run": lambda world: world.run("classifier"),
    "report": lambda world: world.tables_report,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_table_that_the_folder_does_not_name_is_refused(part, world, tmp_path):
    folder = shutil.copytree(PARTS[part](world), tmp_path / "copy")
    read = folders.reader_of(folder)
    assert list(read(folder))
    tables = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file()]
    refused = 0
    for path in tables:
        own = path.read_bytes()
        table = pd.read_parquet(path)
        if len(table) < 2:
            continue
        table.iloc[::-1].to_parquet(path)  # as valid as the first
        with pytest.raises(InputError, match=path.name):
            list(read(folder))
        path.write_bytes(own)
        refused += 1
    assert refused
    assert list(read(folder))


@pytest.mark.parametrize("change", ["another run", "lost"])
@pytest.mark.parametrize(
    "file",
    [
        *("model.safetensors", "config.toml", "model.json", "preprocess.json"),
        *("decision.json", "guard.npz", "seen.parquet"),
    ],
)
def test_a_file_of_another_run_and_a_lost_one_are_refused(file, change, world, tmp_path):
    folder = Path(shutil.copytree(world.run("classifier"), tmp_path / "copy"))
    folders.add_guard(folder)
    assert list(folders.run(folder))
    if change == "lost":
        (folder / file).unlink()
    elif file in ("guard.npz", "preprocess.json", "seen.parquet"):  # those of both runs are equal
        (folder / file).write_bytes((folder / "decision.json").read_bytes())
    else:
        shutil.copyfile(world.run("detector") / file, folder / file)
    with pytest.raises(InputError, match=file):
        list(folders.run(folder))


def test_a_part_of_a_table_more_or_less_is_refused(world, tmp_path):
    folder = shutil.copytree(world.predictions("classifier"), tmp_path / "copy")
    part = next(iter(sorted((folder / "scores.parquet").glob("*.parquet"))))
    more = part.with_name("part-00099.parquet")
    shutil.copyfile(part, more)
    with pytest.raises(InputError, match=more.name):
        list(folders.predictions(folder))
    more.unlink()
    part.unlink()
    with pytest.raises(InputError, match=part.name):
        list(folders.predictions(folder))
