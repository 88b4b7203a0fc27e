"""Names of images as other software writes them: each is its own image, or all are refused."""

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.adapters.names import images_of, members_and_positions

ENDINGS = ("", ".png", ".PNG", ".jpeg", ".dcm", ".dcm.png", ".nii.gz")
FOLDERS = ("", "a/", "b/", "a/b/", "0001/")
MACHINES = ("", "/data/", "C:\\x\\", "/0a1b2c3d-x/")
UPLOADS = ("", "0a1b2c3d-", "1b2c3d4e-", "20260101-")
STEMS = ("1", "01", "001", "10", "0010", "x", "x1", "x.1", "1.2.840", "1.2.841", "00", "\u00e9")

bare_names = st.builds("{}{}{}".format, *map(st.sampled_from, (FOLDERS, UPLOADS, STEMS)))
images = st.builds("{}{}".format, bare_names, st.sampled_from(ENDINGS))
stored = st.lists(images, min_size=1, max_size=6, unique=True)


def least(name):
    """Rest of a name without folder, ending, prefix of an upload and zeros."""
    last = re.split(r"[/\\]", name)[-1]
    last = re.sub(r"^[0-9a-f]{8}-", "", re.sub(r"(?i)(\.(png|jpeg|dcm|nii|gz))+$", "", last))
    return str(int(last)) if last.isdecimal() else last


def dressed(draw, image):
    """A name that other software may give an image."""
    folder, slash, last = image.rpartition("/")
    if draw(st.booleans()):
        folder = slash = ""
    if draw(st.booleans()):
        last = last.partition(".png")[0]
    if draw(st.booleans()) and last.isdecimal():
        last = str(int(last))
    if not re.match("[0-9a-f]{8}-", last):
        last = draw(st.sampled_from(UPLOADS)) + last
    return draw(st.sampled_from(MACHINES)) + folder + slash + last + draw(st.sampled_from(ENDINGS))


@given(stored, st.data())
def test_names_find_their_own_images_or_are_refused(ids, data):
    assume(len({least(image) for image in ids}) == len(ids))
    chosen = data.draw(st.lists(st.sampled_from(ids), unique=True, min_size=1))
    names = {dressed(data.draw, image): image for image in chosen}
    found = images_of(list(names), ids)
    assert isinstance(found, tuple) or found == names


@given(stored, st.data())
def test_whole_names_below_a_folder_find_their_own_images_or_are_refused(ids, data):
    machine = data.draw(st.sampled_from(MACHINES))
    names = {machine + image + ".png": image for image in ids}
    found = images_of(list(names), ids)
    assert isinstance(found, tuple) or found == names


@given(stored, st.sampled_from(MACHINES), st.sampled_from(ENDINGS))
def test_names_that_gained_one_kind_of_part_are_found(ids, machine, ending):
    assume(len({least(image) for image in ids}) == len(ids))
    names = {machine + image + ending: image for image in ids}
    assert images_of(list(names), ids) == names


@given(
    st.lists(st.sampled_from(STEMS), min_size=1, unique=True),
    st.sampled_from([("test/", "train/"), ("0a1b2c3d-", "1b2c3d4e-"), ("a/x/", "b/x/")]),
    st.sampled_from(ENDINGS),
)
def test_names_of_another_folder_or_upload_are_refused(stems, parts, ending):
    own, other = parts
    found = images_of([other + stem + ending for stem in stems], [own + stem for stem in stems])
    assert isinstance(found, tuple)


maybe_texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "NA"])), max_size=9)


@given(maybe_texts, maybe_texts)
def test_a_text_is_found_at_its_first_position_and_a_missing_one_nowhere(texts, others):
    members, rows = members_and_positions(texts, others)
    assert members == [text is not None and text in others for text in texts]
    assert rows == [others.index(t) if t is not None and t in others else -1 for t in texts]
