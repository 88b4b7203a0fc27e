"""Several sets as one: nobody is lost, renamed by chance, called negative unasked, or split up."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.assemble.combine import combine
from cxr_compare.data_prep.assemble.combined_targets import merge_targets
from cxr_compare.data_prep.audit.splits import find_leaks
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import empty_table, read_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import SourceTables
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.store.build_pixel_store import build_pixel_store

from cxr_compare.data_prep.assemble import dataset_writer
from cxr_compare.data_prep.dataset import DataSet
from tests.data_prep.assemble.sources import make as make_set
from tests.data_prep.assemble.sources import write_source
from tests.plain_sets import prepare_plain


def make(source: Path, out: Path, **options) -> Path:
    make_set(source, out, **options)
    return out


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images i00 to i11 of NIH patients, and i08 to i19, of which two patients are the same."""
    tmp_path = tmp_path_factory.mktemp("sets")
    one = [f"i{n:02d}" for n in range(12)]
    other = [f"i{n:02d}" for n in range(8, 20)]
    write_source(
        tmp_path / "in/one",
        one,
        [f"nih:{n // 2}" for n in range(12)],
        finding="lung_opacity",
        ill=2,
    )
    write_source(
        tmp_path / "in/deep/two",
        other,
        [f"nih:{n // 2}" if n < 4 else str(n) for n in range(12)],
        finding="pneumonia",
        ill=2,
        seed=1,
        x_ward=[n % 3 for n in range(12)],
    )
    return make(tmp_path / "in/one", tmp_path / "one"), make(
        tmp_path / "in/deep/two", tmp_path / "two"
    )


def test_images_patients_findings_and_pixels_are_all_there(tmp_path, two_sets):
    summary = combine(two_sets, tmp_path / "both", rule=SplitRule(folds=3))
    both = DataSet.open(tmp_path / "both")
    assert (summary.n_images, summary.n_patients, summary.n_boxes) == (24, 6 + 8, 12)
    assert both.images["x_set"].value_counts().to_dict() == {"one": 12, "two": 12}
    assert both.images["source"].value_counts().to_dict() == {"one": 12, "two": 12}
    assert both.source_root == two_sets[0].parent / "in"
    for part, old, new in ((0, "i00", "i00"), (0, "i08", "one/i08"), (1, "i08", "two/i08")):
        assert np.array_equal(
            DataSet.open(two_sets[part]).read_original(old), both.read_original(new)
        )
    assert both.images["x_ward"].isna().sum() == 12
    assert len(read_table(tmp_path / "both/decode.parquet", "decode")) == 24
    store = build_pixel_store(both.folder, both.images, both.source_root, 16)
    assert store.image("two/i08").shape == (16, 16)


def test_only_ids_that_occur_twice_get_the_name_of_their_set(tmp_path, two_sets):
    summary = combine(two_sets, tmp_path / "both")
    ids = DataSet.open(tmp_path / "both").images["image_id"]
    renamed = ids[ids.str.contains("/")]
    assert sorted(renamed) == [f"{s}/i{n:02d}" for s in ("one", "two") for n in range(8, 12)]
    assert any(note.startswith("4 image ids occur in several") for note in summary.notes)


def test_a_patient_of_two_sets_is_one_and_has_one_role(tmp_path, two_sets):
    summary = combine(two_sets, tmp_path / "both", rule=SplitRule(val=0.3, test=0.3))
    both = DataSet.open(tmp_path / "both")
    assert any(note.startswith("2 patients occur in several") for note in summary.notes)
    sets_of = both.images.groupby("patient_id")["x_set"].nunique()
    assert sets_of.index[sets_of == 2].tolist() == ["nih:0", "nih:1"]
    assert find_leaks(both.images, both.split()).empty


def test_a_finding_that_a_set_does_not_label_is_unknown_there(tmp_path, two_sets):
    combine(two_sets, tmp_path / "both")
    both = DataSet.open(tmp_path / "both")
    unknown = both.labels(both.target("pneumonia")).isna()
    assert set(both.images.loc[unknown.to_numpy(), "x_set"]) == {"one"}
    assert any("only in two: pneumonia" in note for note in both.info.notes)


def test_a_target_of_the_user_follows_the_findings_that_each_set_labels(tmp_path, two_sets):
    wanted = {"opacity": ["lung_opacity", "pneumonia"]}
    summary = combine(two_sets, tmp_path / "both", targets=wanted)
    both = DataSet.open(tmp_path / "both")
    assert summary.targets["opacity"] == {"positive": 12, "negative": 12, "unknown": 0}
    assert len(both.boxes_trusted(both.target("opacity"))) == 24
    assert len(both.target_boxes(both.target("opacity"))) == 12
    assert any("in one lung_opacity; in two pneumonia" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"a": ["mass"]}, "--target a: finding 'mass' is in none of the sets"),
        ({"pneumonia": ["lung_opacity", "pneumonia"]}, "choose another name"),
        ({"a": []}, "--target a"),
    ],
)
def test_a_target_that_cannot_be_is_refused(tmp_path, two_sets, targets, message):
    with pytest.raises(InputError, match=message):
        combine(two_sets, tmp_path / "both", targets=targets)
    assert not (tmp_path / "both").exists()


def test_equal_images_of_two_sets_stay_in_one_role_and_are_named(tmp_path):
    ids = [f"i{n}" for n in range(8)]
    sources = [
        write_source(tmp_path / name, ids, [f"{k}" for k in range(8)], ill=2, seed=seed)
        for seed, name in enumerate(("a", "b"))
    ]
    for n in range(0, 8, 2):
        (sources[1] / f"i{n}.png").write_bytes((sources[0] / f"i{n}.png").read_bytes())
    sets = [make(source, tmp_path / f"set-{source.name}") for source in sources]
    summary = combine(sets, tmp_path / "both", rule=SplitRule(val=0.3, test=0.3))
    role = DataSet.open(tmp_path / "both").split().set_index("image_id")["role"]
    assert summary.n_patients == 16
    for n in range(0, 8, 2):
        assert role[f"set-a/i{n}"] == role[f"set-b/i{n}"]
    assert any("same image" in problem.line for problem in summary.audit.problems)


def test_unused_images_of_a_set_stay_unused_and_other_splits_are_left_behind(tmp_path):
    ids = [f"i{n}" for n in range(8)]
    patients = [str(n) for n in range(8)]
    given = ["train", "train", "train", "val", "test", "test", "unused", "unused"]
    write_source(tmp_path / "a", ids, patients, ill=2, split=given)
    write_source(tmp_path / "b", [f"j{n}" for n in range(8)], patients, ill=2, seed=1)
    sets = [make(tmp_path / name, tmp_path / f"set-{name}") for name in "ab"]
    combine(sets, tmp_path / "both")
    both = DataSet.open(tmp_path / "both")
    assert both.image_ids("unused").tolist() == ["i6", "i7"]
    assert set(both.ids.split_ids) == {"default"}


def test_a_second_call_adds_nothing_whatever_the_order_and_an_interrupted_one_goes_on(
    tmp_path, two_sets, monkeypatch
):
    def stop(dataset, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset_writer, "audit", stop)
        with pytest.raises(KeyboardInterrupt):
            combine(two_sets, tmp_path / "both")
    with pytest.raises(InputError, match="an unfinished data set; run the same cxr prepare"):
        DataSet.open(tmp_path / "both")
    assert not combine(two_sets, tmp_path / "both").already_complete
    assert combine(two_sets[::-1], tmp_path / "both").already_complete
    combine(two_sets, tmp_path / "straight")
    ids = [DataSet.open(tmp_path / name).ids for name in ("both", "straight")]
    assert ids[0] == ids[1]
    with pytest.raises(InputError, match=r"seed=0\b.*seed=1\b"):
        combine(two_sets, tmp_path / "both", rule=SplitRule(seed=1))


def test_what_cannot_be_combined_is_refused_before_anything_is_written(tmp_path, two_sets):
    one, two = two_sets
    sources = one.parent / "in"
    again = shutil.copytree(one, tmp_path / "again")
    out = tmp_path / "both"
    for folders, place, message in (
        ([one], out, "two data sets or more"),
        ([one, one], out, "holds the same images"),
        ([one, again], out, "holds the same images"),
        ([one, sources], out, "is not a data set folder"),
        ([one, two], one / "both", "not inside or around"),
        ([one, two], one.parent, "not inside or around"),
        ([one, two], sources / "one", "not empty"),
    ):
        with pytest.raises(InputError, match=message):
            combine(folders, place)
    assert not out.exists()
    assert not (one / "both").exists()


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sets of one name that mean two things by one target; the second has no pixels."""
    folder = tmp_path_factory.mktemp("wards")
    for seed, finding in enumerate(("mass", "nodule")):
        source = write_source(
            folder / finding / "ward", ["i0", "i1"], ["0", "1"], finding=finding, ill=2, seed=seed
        )
        if finding == "nodule":
            table = pd.read_csv(source / "images.csv").drop(columns="path")
            table.to_csv(source / "images.csv", index=False)
            out = folder / f"set-{finding}"
            prepare_plain(source, out, name="ward", target={"lesion": [finding]})
        else:
            make(source, folder / f"set-{finding}", name="ward", targets={"lesion": [finding]})
    return [folder / "set-mass", folder / "set-nodule"]


def test_sets_of_one_name_whose_targets_differ_need_the_users_word(tmp_path, wards):
    with pytest.raises(InputError, match="'lesion' is mass in ward and nodule in ward-2"):
        combine(wards, tmp_path / "both")
    summary = combine(wards, tmp_path / "both", targets={"lesion": ["mass", "nodule"]})
    assert summary.targets["lesion"] == {"positive": 2, "negative": 2, "unknown": 0}
    both = DataSet.open(tmp_path / "both")
    assert sorted(both.images["image_id"]) == ["ward-2/i0", "ward-2/i1", "ward/i0", "ward/i1"]
    assert not both.has_pixels  # the second set has none, so the whole one is to evaluate on only
    assert any(note.startswith("2 images have no pixels") for note in summary.notes)


def test_hashed_ids_and_paths_stay_hashed_and_lead_to_the_images(tmp_path, monkeypatch):
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        ids = [f"{name}{n}" for n in range(3)]
        write_source(tmp_path / "in" / name, ids, [f"mrn:{n}" for n in range(3)], ill=2, seed=seed)
    key = tmp_path / "key"
    make(tmp_path / "in/a", tmp_path / "a", id_key=key)
    make(tmp_path / "in/b", tmp_path / "b")
    make(tmp_path / "in/c", tmp_path / "c", id_key=tmp_path / "other-key")
    with pytest.raises(InputError, match="hashed with another key"):
        combine([tmp_path / "a", tmp_path / "c"], tmp_path / "no")
    monkeypatch.delitem(os.environ, "CXR_ID_KEY", raising=False)
    with pytest.raises(InputError, match="set CXR_ID_KEY"):
        combine([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    monkeypatch.setitem(os.environ, "CXR_ID_KEY", str(key))
    summary = combine([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert any("hashed and the others are not" in note for note in summary.notes)
    both = DataSet.open(tmp_path / "both")
    assert both.images["path"].str.fullmatch(r"hidden/[0-9a-f]{24}").all()
    for part in ("a", "b"):
        image = DataSet.open(tmp_path / part).images["image_id"].iloc[0]
        assert np.array_equal(
            DataSet.open(tmp_path / part).read_original(image), both.read_original(image)
        )


# Two images a line: what a set says of an image, and what the made finding is.
CASES = {
    "both present": ({"mass": "present", "nodule": "present"}, "present"),
    "one present": ({"mass": "absent", "nodule": "present"}, "present"),
    "present beats uncertain": ({"mass": "uncertain", "nodule": "present"}, "present"),
    "both absent": ({"mass": "absent", "nodule": "absent"}, "absent"),
    "one absent, one unknown": ({"mass": "absent"}, None),
    "one absent, one uncertain": ({"mass": "absent", "nodule": "uncertain"}, "uncertain"),
    "nothing known": ({}, None),
}


def rows(image_id: str, states: dict[str, str], reader: str = "reference") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": image_id,
            "finding": list(states),
            "reader": reader,
            "state": list(states.values()),
            "origin": "consensus",
        },
        dtype=TEXT,
    )


def merge(asked: dict[str, pd.DataFrame], wanted: dict, **tables: pd.DataFrame) -> SourceTables:
    findings = pd.concat(asked.values(), ignore_index=True)
    joined = SourceTables("combined", Path(), empty_table("images"), findings, {}, **tables)
    own = {part: {} for part in asked}
    return merge_targets(joined, own, asked, wanted)


def make_sets() -> dict[str, pd.DataFrame]:
    """One set asked about mass and nodule, the other about opacity alone."""
    one = pd.concat([rows(name, states) for name, (states, _) in CASES.items()])
    other = pd.concat([rows("white", {"opacity": "present"}), rows("clear", {"opacity": "absent"})])
    another_reader = rows("clear", {"opacity": "present"}, reader="A")
    return {"one": one, "other": pd.concat([other, another_reader])}


def test_the_state_follows_from_what_the_set_asked_about():
    made = merge(make_sets(), {"lesion": ["mass", "nodule", "opacity"]})
    states = made.findings[made.findings["finding"] == "lesion"].set_index("image_id")["state"]
    for name, (_, expected) in CASES.items():
        assert states.get(name) == expected, name
    assert (states["white"], states["clear"]) == ("present", "absent")
    assert made.targets["lesion"].any_of == ("lesion",)
    assert made.findings.duplicated(["image_id", "finding", "reader"]).sum() == 0


def test_spellings_that_a_target_joins_are_one_finding_of_the_combined_set():
    asked = {
        "one": pd.concat(
            [
                rows("a", {"mass": "absent", "masss": "present"}),
                rows("b", {"mass": "absent", "masss": "absent"}),
            ]
        )
    }
    made = merge(asked, {"mass": ["mass", "masss"]})
    states = made.findings.set_index("image_id")
    assert set(states["finding"]) == {"mass"}
    assert states["state"].to_dict() == {"a": "present", "b": "absent"}
    assert made.targets["mass"].any_of == ("mass",)


def test_boxes_go_along_and_are_whole_only_where_those_of_every_present_finding_are():
    boxes = pd.DataFrame(
        {
            "image_id": ["both present", "one present"],
            "finding": ["mass", "nodule"],
            **{"x1": 1.0, "y1": 1.0, "x2": 9.0, "y2": 9.0, "reader": "reference"},
        }
    )
    coverage = boxes[["image_id", "finding", "reader"]].assign(coverage="all")
    wanted = {"lesion": ["mass", "nodule", "opacity"]}
    made = merge(make_sets(), wanted, boxes=boxes, box_coverage=coverage)
    assert (made.boxes["finding"] == "lesion").sum() == 2
    new = made.box_coverage[made.box_coverage["finding"] == "lesion"]
    covered = new.set_index("image_id")["coverage"].to_dict()
    # Where both are present, the nodule was not boxed; where one is absent, it needs no box.
    assert covered == {"both present": "some", "one present": "all"}


def test_a_target_that_every_set_asked_about_in_full_or_not_at_all_needs_no_new_finding():
    made = merge(make_sets(), {"either": ["mass", "nodule"]})
    assert made.targets["either"].any_of == ("mass", "nodule")
    assert len(made.findings) == sum(len(table) for table in make_sets().values())


def test_images_of_a_list_are_left_out_of_several_sets_by_the_ids_that_they_have_there(
    tmp_path, two_sets
):
    listed = tmp_path / "exclude.csv"
    listed.write_text("image_id,reason\ntwo/i08,a copy\n")
    combine(two_sets, tmp_path / "both", rule=SplitRule(folds=3), exclude=listed)
    both = DataSet.open(tmp_path / "both")
    assert len(both.images) == len(both.optional_table("decode")) == 23
    assert "two/i08" not in set(both.images["image_id"])
    assert both.optional_table("excluded")["path"].tolist() == ["deep/two/i08.png"]
    with pytest.raises(InputError, match="another list of images to leave out; prepare"):
        combine(two_sets, tmp_path / "both", rule=SplitRule(folds=3))
