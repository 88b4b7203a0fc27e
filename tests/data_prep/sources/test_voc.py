"""The Pascal VOC reader: edges as written, XML that can do no harm, images and roles."""

from contextlib import suppress

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_prep.sources.answers import edges, reader, reasons, roles, write_files

SIZE = "<size><width>100</width><height>80</height><depth>3</depth></size>"


def lesion(name: str = "Mass", edges: str = "10 20 40 60", more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), edges.split(), strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def xml(*objects: str, filename: str = "", more: str = SIZE) -> str:
    named = f"<filename>{filename}</filename>" if filename else ""
    return f"<annotation>{named}{more}{''.join(objects)}</annotation>"


read = reader("voc")


VOC = {
    "Annotations/a.xml": xml(lesion(), filename="a.jpg"),
    "Annotations/b.xml": xml(filename="b.jpg"),
    "JPEGImages/a.jpg": "",
    "JPEGImages/b.jpg": "",
}


def test_edges_are_as_written_and_silence_is_absence(tmp_path):
    tables = read(write_files(tmp_path, VOC))
    assert edges(tables) == [[10, 20, 40, 60]]
    assert tables.findings[["image_id", "finding", "state"]].to_numpy().tolist() == [
        ["a", "mass", "present"],
        ["b", "mass", "absent"],
    ]
    assert tables.images["width"].tolist() == [100, 100]
    assert tables.images["path"].tolist() == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert set(tables.box_coverage["coverage"]) == {"all"}


def test_the_name_of_the_challenge_moves_no_edge(tmp_path):
    copied = "<source><database>The VOC2007 Database</database></source>" + SIZE
    files = {**VOC, "Annotations/a.xml": xml(lesion(), more=copied)}
    assert read(write_files(tmp_path, files)).boxes["x1"].tolist() == [10]


def test_decimals_are_kept(tmp_path):
    files = {**VOC, "Annotations/a.xml": xml(lesion(edges="10.25 0 40.000001 60.5"))}
    boxes = read(write_files(tmp_path, files)).boxes
    assert boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[10.25, 0, 40.000001, 60.5]]


def test_an_image_without_a_file_is_not_known_and_masks_are_no_images(tmp_path):
    files = {**VOC, "JPEGImages/c.jpg": "", "SegmentationClass/a.png": ""}
    tables = read(write_files(tmp_path, files))
    assert sorted(tables.images["image_id"]) == ["a", "b", "c"]
    assert tables.split.to_dict("records") == [{"image_id": "c", "role": "unused"}]
    assert "c" not in set(tables.findings["image_id"])


@pytest.mark.parametrize(
    "places",
    [
        ("Annotations/a.xml", "images/a.png"),
        ("a.xml", "a.png"),
        ("train/a.xml", "train/a.png"),
        ("annotations/xml/a.xml", "imgs/tb/a.png"),
        ("VOC2012/Annotations/a.xml", "VOC2012/JPEGImages/a.png"),
    ],
)
def test_images_are_found_in_every_layout(tmp_path, places):
    xml_path, image = places
    tables = read(write_files(tmp_path, {xml_path: xml(lesion(), filename="a.png"), image: ""}))
    assert tables.images["path"].tolist() == [image]


def test_a_file_of_another_name_says_its_image_itself(tmp_path):
    path = "<path>C:\\work\\JPEGImages\\a.jpg</path>" + SIZE
    files = {"Annotations/0001.xml": xml(lesion(), more=path), "JPEGImages/a.jpg": ""}
    assert read(write_files(tmp_path, files)).images["image_id"].tolist() == ["a"]


def test_two_answers_to_which_image_it_is_exclude_it(tmp_path):
    files = {**VOC, "Annotations/a.xml": xml(lesion(), filename="b.jpg")}
    files["Annotations/c.xml"] = xml(lesion(), filename="b.jpg")
    files["Annotations/d.xml"] = xml(lesion(), filename="d.jpg")
    found = reasons(
        read(
            write_files(
                tmp_path, {**files, "JPEGImages/e.jpg": "", "Annotations/e.xml": xml(lesion())}
            )
        )
    )
    assert "says that it is of JPEGImages/b.jpg" in found["JPEGImages/a.jpg"]
    assert "Annotations/b.xml labels the same image" in found["JPEGImages/b.jpg"]
    assert found["Annotations/d.xml"] == "label file: no such image"


def test_the_box_of_a_part_is_not_the_box_of_the_object(tmp_path):
    part = "<part><name>x</name><bndbox><xmin>0</xmin></bndbox></part>"
    files = {**VOC, "Annotations/a.xml": xml(lesion(more=part))}
    assert read(write_files(tmp_path, files)).boxes["x1"].tolist() == [10]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (xml(lesion(edges="10 20 10 60")), "zero or negative size"),
        (xml(lesion(), lesion(edges="nan 20 10 60")), "object 2: has no bndbox of four"),
        (xml(lesion(edges="-9 20 10 60")), "box outside the image"),
        (xml(lesion(name="")), "object 1: has no name"),
        (xml("<object><name>m</name><robndbox/></object>"), "object 1: has no bndbox"),
        ("", "is empty"),
        ("<annotation>", "not readable as XML"),
        ("<annotations/>", "not <annotation>; give --format cvat"),
        ("<?xml version='1.0' encoding='klingon'?><annotation/>", "not readable as XML"),
    ],
)
def test_a_wrong_file_excludes_its_image_alone(tmp_path, content, reason):
    files = {**VOC, "Annotations/b.xml": xml(lesion()), "Annotations/a.xml": content}
    tables = read(write_files(tmp_path, files))
    assert list(reasons(tables)) == ["JPEGImages/a.jpg"]
    assert reason in reasons(tables)["JPEGImages/a.jpg"]
    assert str(tmp_path) not in reasons(tables)["JPEGImages/a.jpg"]
    assert tables.images["image_id"].tolist() == ["b"]


BOMB = '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
STEAL = '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("head", [BOMB, STEAL])
def test_a_document_type_is_refused_in_any_disguise(tmp_path, head, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>{head}' + xml(lesion("&a;"))
    content = text.encode(encoding)
    files = {**VOC, "Annotations/b.xml": xml(lesion()), "Annotations/a.xml": content}
    tables = read(write_files(tmp_path, files))
    assert list(reasons(tables)) == ["JPEGImages/a.jpg"]
    assert "document type" in reasons(tables)["JPEGImages/a.jpg"]
    assert tables.images["image_id"].tolist() == ["b"]


def test_roles_come_from_image_sets_but_not_from_lists_of_one_class(tmp_path):
    lists = {
        "ImageSets/Main/train.txt": "a\n",
        "ImageSets/Main/val.txt": "b\n\nnot-here\n",
        "ImageSets/Main/trainval.txt": "a\nb\n",
        "ImageSets/Main/mass_test.txt": "a 1\nb -1\n",
    }
    assert roles(read(write_files(tmp_path, {**VOC, **lists}))) == {"a": "train", "b": "val"}


def test_roles_come_from_folders_where_there_are_no_lists(tmp_path):
    files = {
        "train/a.xml": xml(lesion()),
        "train/a.jpg": "",
        "valid/b.xml": xml(),
        "valid/b.jpg": "",
    }
    official = read(write_files(tmp_path, files)).official
    assert official["role"].tolist() == ["train", "val"]


def test_the_patient_can_be_found_in_the_name(tmp_path):
    tables = read(write_files(tmp_path / "set", VOC), patient_pattern=r"(\w)\.jpg")
    assert tables.images["patient_id"].tolist() == ["set:a", "set:b"]


def test_a_folder_without_xml_or_with_nothing_usable_is_one_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no image can be used; .*no such image"):
        read(write_files(tmp_path / "lost", {"a.xml": xml(lesion())}))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_tables_or_one_clear_error(tmp_path_factory, data):
    content = bytearray(VOC["Annotations/a.xml"].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    files = {**VOC, "Annotations/b.xml": bytes(content[:cut]), "Annotations/a.xml": bytes(content)}
    source = write_files(tmp_path_factory.mktemp("damaged"), files)
    with suppress(InputError):  # nothing else may come out
        assert len(read(source).images)
