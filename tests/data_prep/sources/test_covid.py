"""The COVID-19 reader: three layouts, what counts as known, what is no frontal radiograph."""

from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import NO_PIXELS

from tests.data_prep.sources.answers import reader, reasons, states_of, write_files

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
COLLECTION = "patientid,offset,sex,age,finding,view,modality,folder,filename,url"
HANNOVER = "patient_id,image_id,sex,age,admission_offset,modality,projection"


read = reader("covid")


def touch(folder: Path, *names: str) -> Path:
    """Write empty files: the reader opens no image."""
    return write_files(folder, dict.fromkeys(names, ""))


def write_radiography(folder: Path) -> Path:
    for name in CLASSES:
        touch(folder, f"{name}/images/{name}-1.png", f"{name}/masks/{name}-1.png")
    return folder


def write_collection(folder: Path, rows: list[str], header: str = COLLECTION) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


# The Radiography Database


def test_a_class_folder_says_nothing_of_other_findings_and_normal_excludes_all(tmp_path):
    tables = read(write_radiography(tmp_path))
    assert states_of(tables, "COVID-1") == {"covid_19": "present"}
    assert states_of(tables, "Lung_Opacity-1") == {"lung_opacity": "present"}
    assert states_of(tables, "Viral Pneumonia-1") == {"viral_pneumonia": "present"}
    assert states_of(tables, "Normal-1") == dict.fromkeys(
        ("covid_19", "lung_opacity", "viral_pneumonia"), "absent"
    )
    assert [target.display_name for target in tables.targets.values()] == [
        "COVID-19",
        "Lung opacity",
        "Viral pneumonia",
    ]


def test_masks_are_never_images(tmp_path):
    tables = read(write_radiography(tmp_path))
    assert len(tables.images) == 4
    assert not tables.images["path"].str.contains("masks").any()
    assert tables.excluded.empty


@pytest.mark.parametrize("depth", [1, 2])
def test_the_folders_that_kaggle_puts_around_it_are_seen_through(tmp_path, depth):
    write_radiography(tmp_path.joinpath(*["COVID-19_Radiography_Dataset"] * depth))
    assert len(read(tmp_path).images) == 4


def test_older_releases_and_the_folder_above_are_read(tmp_path):
    above = "COVID-19 Radiography Database"
    source = touch(tmp_path, f"{above}/COVID-19/COVID-19 (1).png", f"{above}/NORMAL/NORMAL (1).png")
    tables = read(source)
    assert states_of(tables, "COVID-19 (1)") == {"covid_19": "present"}
    assert states_of(tables, "NORMAL (1)") == {"covid_19": "absent"}
    assert tables.images["path"].str.startswith(above).all()


def test_patients_are_assumed_loudly_unless_a_pattern_finds_them(tmp_path):
    tables = read(write_radiography(tmp_path))
    assert set(tables.images["patient_id_source"]) == {"assumed_image"}
    assert "covid_radiography:image-COVID-1" in set(tables.images["patient_id"])
    assert any(note.startswith("WARNING") and "4 images" in note for note in tables.notes)
    tables = read(tmp_path, patient_pattern=r"-(\d+)")
    assert set(tables.images["patient_id"]) == {"covid_radiography:1"}


def test_images_outside_the_classes_or_against_their_name_are_left_out(tmp_path):
    source = touch(write_radiography(tmp_path), "Figures/a.png", "COVID/images/Normal-7.png")
    assert reasons(read(source)) == {
        "Figures/a.png": "not in the folder of a class",
        "COVID/images/Normal-7.png": "named as of another class than its folder",
    }


def test_an_added_image_changes_no_other_id(tmp_path):
    source = touch(tmp_path, "COVID/scan.png", "Normal/Normal-3.png")
    before = set(read(source).images["image_id"])
    assert before == {"COVID/scan", "Normal-3"}
    touch(source, "Normal/scan.png", "COVID/COVID-3.png")
    assert before < set(read(source).images["image_id"])


def test_empty_class_folders_are_refused(tmp_path):
    (tmp_path / "COVID" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="hold no image"):
        read(tmp_path)


# The image data collection


def test_each_part_of_the_published_path_is_a_finding_and_the_rest_is_unknown(tmp_path):
    source = write_collection(
        tmp_path,
        [
            "2,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.jpg,",
            "3,,F,,Pneumonia/Bacterial/E.Coli,AP,X-ray,images,b.png,",
            "4,,,,No Finding,AP Supine,X-ray,images,c.png,",
            "5,,,,todo,PA,X-ray,images,d.png,",
        ],
    )
    touch(source, "images/a.jpg", "images/b.png", "images/c.png", "images/d.png")
    tables = read(source)
    assert states_of(tables, "a") == dict.fromkeys(
        ("pneumonia", "viral_pneumonia", "covid_19"), "present"
    )
    assert states_of(tables, "b") == dict.fromkeys(
        ("pneumonia", "bacterial_pneumonia", "e_coli"), "present"
    )
    every = {"pneumonia", "viral_pneumonia", "covid_19", "bacterial_pneumonia", "e_coli"}
    assert states_of(tables, "c") == dict.fromkeys(every, "absent")
    assert states_of(tables, "d") == {}
    assert any("1 image has no label" in note for note in tables.notes)
    assert next(iter(tables.targets)) == "covid_19"
    assert "e_coli" not in tables.targets


def test_patients_views_and_times_come_from_the_table(tmp_path):
    source = write_collection(
        tmp_path,
        [
            "2,3,m,65,COVID-19,AP semi erect,X-ray,images,a.jpg,https://www.sirm.org/x",
            ",,,,No Finding,PA,X-ray,images,b.jpg,",
        ],
    )
    images = read(touch(source, "images/a.jpg", "images/b.jpg")).images.set_index("image_id")
    wanted = ["patient_id", "view", "sex", "age_years", "x_view", "x_offset_days"]
    assert images.loc["a", wanted].tolist() == [
        "covid_collection:2",
        "AP",
        "M",
        65,
        "AP semi erect",
        3,
    ]
    assert images["patient_id_source"].to_dict() == {"a": "given", "b": "assumed_image"}


@pytest.mark.parametrize(
    ("view", "modality", "reason"),
    [
        ("L", "X-ray", "lateral view"),
        ("Axial", "CT", "CT slice"),
        ("CT", "", "CT slice"),  # the first tables had no modality
        ("PA", "Ultrasound", "another modality"),
    ],
)
def test_what_is_no_frontal_radiograph_is_left_out(tmp_path, view, modality, reason):
    rows = [
        f"2,0,M,65,COVID-19,{view},{modality},images,a.jpg,",
        "3,0,M,65,COVID-19,PA,X-ray,images,b.jpg,",
    ]
    tables = read(touch(write_collection(tmp_path, rows), "images/a.jpg", "images/b.jpg"))
    assert tables.images["image_id"].tolist() == ["b"]
    assert reason in reasons(tables)["images/a.jpg"]


def test_images_without_a_row_are_left_out_and_masks_beside_them_ignored(tmp_path):
    rows = [
        "2,0,M,65,COVID-19,PA,X-ray,images,a.jpg,",
        "2,0,M,65,COVID-19,PA,X-ray,images,lost.jpg,",
    ]
    source = write_collection(tmp_path, rows)
    touch(source, "images/a.jpg", "images/stray.jpg", "annotations/lungVAE-masks/a_mask.png")
    tables = read(source)
    assert reasons(tables) == {
        "lost": "row in metadata.csv, but no image",
        "images/stray.jpg": "no row in metadata.csv",
    }


def test_the_table_alone_is_a_set_without_pixels(tmp_path):
    tables = read(write_collection(tmp_path, ["2,0,M,65,COVID-19,PA,X-ray,images,a.jpg,"]))
    assert tables.images["path"].isna().all()
    assert NO_PIXELS in tables.notes


def test_contradicting_rows_exclude_their_image(tmp_path):
    rows = [
        "2,0,M,65,COVID-19,PA,X-ray,images,a.jpg,",
        "2,0,M,65,No Finding,PA,X-ray,images,a.jpg,",
        '3,0,M,65,"No Finding, COVID-19",PA,X-ray,images,b.jpg,',
        "4,0,M,65,COVID-19,PA,X-ray,images,c.jpg,",
        "4,0,M,65,COVID-19,PA,X-ray,images,c.jpg,",
    ]
    source = touch(write_collection(tmp_path, rows), *(f"images/{n}.jpg" for n in "abc"))
    tables = read(source)
    assert tables.images["image_id"].tolist() == ["c"]
    assert set(tables.excluded["reason"]) == {
        "two different rows in metadata.csv",
        "'no finding' beside a finding",
    }


def test_early_and_kindred_tables_are_read(tmp_path):
    """The first release writes Patientid and has no modality; Actualmed writes imagename."""
    first = write_collection(
        tmp_path / "first",
        ["1,,,PA,COVID-19,a.jpg,https://radiopaedia.org/cases/x"],
        "Patientid,offset,sex,view,finding,filename, url",
    )
    tables = read(touch(first, "images/a.jpg"))
    assert states_of(tables, "a") == {"covid_19": "present"}
    kindred = write_collection(
        tmp_path / "kindred",
        ["ANON1,No finding,PA,X-ray,CR.1.2.png", "ANON2,,PA,X-ray,CR.1.3.png"],
        "patientid,finding,view,modality,imagename",
    )
    tables = read(touch(kindred, "images/CR.1.2.png", "images/CR.1.3.png"))
    assert states_of(tables, "CR.1.2") == {"covid_19": "absent"}
    assert states_of(tables, "CR.1.3") == {}


LISTED = {"metadata.csv": f"{COLLECTION}\n2,0,M,65,COVID-19,PA,X-ray,images,a.jpg,\n"}


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"COVID-19_Radiography_Dataset/a.zip": ""}, {}, "hold no image"),
        ({"metadata.csv": "patientid,finding\n1,COVID-19\n"}, {}, "filename"),
        ({**LISTED, "images/b.jpg": ""}, {}, r"none of its 1 image is listed in metadata\.csv"),
        (LISTED, {"patient_pattern": r"(\d)"}, "leave --patient-pattern out"),
        ({"train/PNEUMONIA/person1_virus_1.jpeg": ""}, {}, "--format kermany"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(tmp_path, files, options, message):
    with pytest.raises(InputError, match=message):
        read(write_files(tmp_path, files), **options)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("Pneumonia/Viral/Influenza/H1N1", {"pneumonia", "viral_pneumonia", "influenza", "h1n1"}),
        ('"COVID-19, ARDS"', {"covid_19", "ards"}),
        ("Tuberculosis", {"tuberculosis"}),
        ("Unknown", set()),
        ("", set()),
    ],
)
def test_published_findings_are_taken_apart(tmp_path, cell, names):
    rows = [f"1,0,M,65,{cell},PA,X-ray,images,a.jpg,", "2,0,M,65,COVID-19,PA,X-ray,images,b.jpg,"]
    source = touch(write_collection(tmp_path, rows), "images/a.jpg", "images/b.jpg")
    assert set(states_of(read(source), "a")) == names


# Hannover


def test_hannover_has_patients_but_no_negative(tmp_path):
    rows = ["p1,a,m,,0,CR,ap", "p1,b,m,71,-3,DX,pa", "p2,c,f,,2,CT,", "p2,d,f,,2,CR,lateral"]
    (tmp_path / "data.csv").write_text("\n".join([HANNOVER, *rows]) + "\n")
    tables = read(touch(tmp_path, *(f"png/{n}.png" for n in "abcde"), "nii/a.nii.gz"))
    images = tables.images.set_index("image_id")
    assert images["patient_id"].to_dict() == {"a": "hannover:p1", "b": "hannover:p1"}
    wanted = ["view", "sex", "age_years", "x_modality", "x_admission_offset_days"]
    assert images.loc["b", wanted].tolist() == ["PA", "M", 71, "DX", -3]
    assert reasons(tables) == {
        "png/c.png": "of another modality than X-ray",
        "png/d.png": "lateral view",
        "png/e.png": "no row in data.csv",
    }
    assert set(tables.findings["state"]) == {"present"}
    assert any("no negative image" in note for note in tables.notes)


def test_real_images_give_the_known_numbers(shared_data):
    tables = read(shared_data / "covid_hannover")
    assert (len(tables.images), tables.images["patient_id"].nunique()) == (30, 5)
    assert tables.images["view"].value_counts().to_dict() == {"AP": 29, "PA": 1}
    assert (tables.findings["state"] == "present").all()
    assert tables.excluded.empty
