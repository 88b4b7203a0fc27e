"""Image files: what is cut or damaged is never read as if it were whole, and copies stay known."""

import struct
import warnings
import zlib
from io import BytesIO
from itertools import combinations

import cv2
import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from cxr_compare import InputError
from tests.adapters import images
from tests.cases import load
from tests.dicom_files import file_content
from tests.small_dicom import as_file, chest, dicom_image, image_file, write_dicom

CUTS = (0.1, 0.3, 0.5, 0.75, 0.9, 0.99, -1, -2, -4, -16)  # shares that are kept, or bytes less
END_OF_IMAGE = b"\xff\xd9"
FILM = chest(3, 96, 80).astype(np.uint16) * 12
GREY = chest(3, 96, 80)


def cut(content, amount):
    return content[: int(len(content) * amount)] if amount > 0 else content[:amount]


def film(frame, syntax, bits=8):
    """A DICOM file around a compressed frame."""
    values = GREY if bits == 8 else FILM
    data = dicom_image(
        values, bits_stored=bits, syntax=syntax, pixel_data=encapsulate([frame]), Modality="DX"
    )
    return as_file(data)


def compressed(syntax, **options):
    data = dicom_image(FILM, bits_stored=12)
    data.compress(syntax, FILM, generate_instance_uid=False, **options)
    return get_frame(data.PixelData, 0, number_of_frames=1)


def frames():
    """Frames of the forms that archives hold: name, content, transfer syntax, bits."""
    grey = Image.fromarray(GREY)
    for name, options in (
        ("baseline", {}),
        ("optimised", {"optimize": True}),
        ("restarts", {"restart_marker_blocks": 10}),
        ("progressive", {"progressive": True}),
    ):
        content = image_file(grey, "JPEG", quality=90, **options)
        yield f"JPEG {name}", content, uid.JPEGBaseline8Bit, 8
    yield "JPEG-LS", compressed(uid.JPEGLSLossless), uid.JPEGLSLossless, 12
    yield (
        "near JPEG-LS",
        compressed(uid.JPEGLSNearLossless, jls_error=2),
        uid.JPEGLSNearLossless,
        12,
    )
    yield "RLE", compressed(uid.RLELossless), uid.RLELossless, 12
    for name, options in (("one tile", {}), ("tiles", {"tile_size": (32, 32)})):
        content = image_file(FILM, "JPEG2000", no_jp2=True, irreversible=False, **options)
        yield f"JPEG 2000, {name}", content, uid.JPEG2000Lossless, 12
    content = image_file(FILM, "JPEG2000", no_jp2=True, irreversible=True, quality_layers=[20, 8])
    yield "lossy JPEG 2000", content, uid.JPEG2000, 12
    for case in load("inputs/dicom.json"):  # of encoders that are not here
        values = case.values[0]
        inside = values["input"].get("syntax", "")
        if inside.startswith(("JPEGLossless", "HTJ2K")) and "refused" not in values:
            data = pydicom.dcmread(BytesIO(file_content(values["input"])))
            yield inside, get_frame(data.PixelData, 0, number_of_frames=1), data, 12


def plain_files():
    grey = Image.fromarray(GREY)
    colour = Image.merge("RGB", [grey, grey.transpose(0), grey])
    for progressive in (False, True):
        yield "a.jpg", image_file(grey, "JPEG", progressive=progressive)
        yield "c.jpg", image_file(colour, "JPEG", progressive=progressive)
    yield "cmyk.jpg", image_file(colour.convert("CMYK"), "JPEG")
    for kind, image in (("grey", grey), ("deep", Image.fromarray(FILM)), ("rgb", colour)):
        yield f"{kind}.png", image_file(image, "PNG")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{compression}.tif", image_file(grey, "TIFF", compression=compression)
    for lossless in (False, True):
        yield "a.webp", image_file(grey, "WEBP", lossless=lossless)
    for kind in ("GIF", "BMP", "PPM"):
        yield f"a.{kind}", image_file(grey, kind)


def judged(path, content, whole):
    """The outcome of a damaged file: refused, doubted, same or FALSE."""
    path.write_bytes(content)
    kind, *found = images.read(path)
    if kind == "refused":
        assert found[0].startswith(f"{path}: ")
        assert "\n" not in found[0]
        return kind
    if np.array_equal(found[0], whole):
        return "same"
    return "doubted" if found[2] else "FALSE"


def whole_greys(path, content):
    path.write_bytes(content)
    kind, *found = images.read(path)
    assert kind == "read", found
    return found[0]


def test_no_dicom_file_that_is_cut_is_read_as_if_it_were_whole(tmp_path):
    path, outcomes = tmp_path / "a.dcm", []
    for name, frame, syntax, bits in frames():

        def file(inside, syntax=syntax, bits=bits):
            if isinstance(syntax, pydicom.Dataset):
                syntax.PixelData = encapsulate([inside])
                return as_file(syntax)
            return film(inside, syntax, bits)

        content = file(frame)
        whole = whole_greys(path, content)
        damaged = [cut(content, amount) for amount in CUTS]
        damaged += [file(cut(frame, amount)) for amount in CUTS]
        if syntax != uid.RLELossless:
            damaged += [file(cut(frame, share) + END_OF_IMAGE) for share in CUTS[:5]]
        outcomes += [(judged(path, each, whole), name, n) for n, each in enumerate(damaged)]
    plain = as_file(dicom_image(FILM, bits_stored=12))
    whole = whole_greys(path, plain)
    outcomes += [(judged(path, cut(plain, amount), whole), "plain", amount) for amount in CUTS]
    assert [each for each in outcomes if each[0] == "FALSE"] == []
    assert sum(each[0] == "refused" for each in outcomes) > 200


def test_no_other_image_file_that_is_cut_is_read_as_if_it_were_whole(tmp_path):
    outcomes = []
    for name, content in plain_files():
        path = tmp_path / name
        whole = whole_greys(path, content)
        damaged = [cut(content, amount) for amount in CUTS]
        if name.endswith("jpg"):
            damaged += [cut(content, share) + END_OF_IMAGE for share in CUTS[:5]]
        outcomes += [(judged(path, each, whole), name, n) for n, each in enumerate(damaged)]
    assert [each for each in outcomes if each[0] == "FALSE"] == []
    assert sum(each[0] == "refused" for each in outcomes) > 150


@pytest.mark.release
def test_no_real_radiograph_that_is_cut_is_read_as_if_it_were_whole(tmp_path, shared_data):
    """552 files and more: Kermany, NIH, Hannover, RSNA and the odd files of the field."""
    paths = sorted((shared_data / "kermany_full").rglob("*.jpeg"))[:12]
    paths += sorted((shared_data / "kermany_224").rglob("*.jpeg"))[::400]
    paths += sorted((shared_data / "nih" / "images").glob("*.png"))[:6]
    paths += sorted((shared_data / "covid_hannover").rglob("*.png"))[:4]
    paths += sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[:12]
    paths += sorted((shared_data / "dicom_odd").iterdir())
    outcomes = []
    for path in paths:
        kind, *found = images.read(path)
        if kind == "refused":
            continue
        content = path.read_bytes()
        for amount in (0.3, 0.6, 0.9, 0.99, -1, -2, -4, -16):
            copy = tmp_path / f"cut{path.suffix}"
            outcomes.append((judged(copy, cut(content, amount), found[0]), path.name, amount))
    assert [each for each in outcomes if each[0] in ("FALSE", "doubted")] == []
    assert len(outcomes) >= 552


def mutated(content, draw):
    """One random damage: cut, flip, overwrite, extremes, move, or noise behind a valid start."""
    damaged, size = bytearray(content), len(content)
    end = min(size, 1200) if draw.random() < 0.5 else size  # headers matter more
    places = draw.integers(0, end, int(draw.integers(1, 9)))
    kind = int(draw.integers(6))
    if kind == 0:
        return content[: int(draw.integers(0, size))]
    if kind == 1:
        for place in places:
            damaged[place] ^= 1 << int(draw.integers(8))
    elif kind == 2:
        fill = int(draw.choice([0x00, 0x01, 0x7F, 0x80, 0xFF]))
        damaged[places[0] : places[0] + 4] = bytes([fill]) * 4
    elif kind == 3:
        start, stop = sorted(int(place) for place in draw.integers(0, end, 2))
        del damaged[start:stop]
    elif kind == 4:
        start, stop = sorted(int(place) for place in draw.integers(0, end, 2))
        damaged[places[0] : places[0]] = damaged[start:stop]
    else:
        kept = int(draw.choice([4, 12, 132, 400]))
        damaged[kept:] = draw.bytes(int(draw.integers(0, 2000)))
    return bytes(damaged)


def test_a_damaged_file_gives_one_line_or_an_image(tmp_path):
    seeds = list(plain_files())
    seeds += [("a.dcm", film(*each[1:])) for each in frames() if isinstance(each[2], str)]
    draw = np.random.default_rng(2)
    kinds = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none reaches the screen
        for number in range(600):
            name, content = seeds[number % len(seeds)]
            path = tmp_path / name
            path.write_bytes(mutated(content, draw))
            kind, *found = images.read(path)
            kinds.append(kind)
            if kind == "refused":
                assert found[0].startswith(f"{path}: ")
                assert "\n" not in found[0]
                assert len(found[0]) - len(str(path)) < 340
            else:
                assert (found[0].dtype, found[0].ndim) == (np.uint8, 2)
    assert kinds.count("refused") > 200
    assert kinds.count("read") > 50


def test_a_decoder_that_is_not_installed_is_no_damage_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    write_dicom(path, np.zeros((64, 64), np.uint8))
    images.leave_out_the_decoders(monkeypatch)
    with pytest.raises(ImportError):
        images.read(path)


# Names


NAME = "JANE"
WRITTEN = (
    "DOE^JANE", "DOE^JANE O'NEIL", "O'\"JANE^DOE\"'", 'D"OE^JANE', "JANE=\\\\JANE", "\x1b$JANE\xff"
)  # fmt: skip
READ_BY_THE_DECODER = (
    "BitsAllocated", "BitsStored", "BurnedInAnnotation", "BodyPartExamined", "Columns", "HighBit",
    "ImageType", "ImagerPixelSpacing", "LossyImageCompression", "Manufacturer", "Modality",
    "NumberOfFrames", "PatientAge", "PatientID", "PatientName", "PatientOrientation", "PatientSex",
    "PhotometricInterpretation", "PixelPaddingValue", "PixelRepresentation", "PixelSpacing",
    "PlanarConfiguration", "PresentationLUTShape", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "Rows", "SOPInstanceUID", "SamplesPerPixel", "SpecificCharacterSet",
    "StudyDate", "StudyInstanceUID", "VOILUTFunction", "ViewPosition", "WindowCenter",
    "WindowCenterWidthExplanation", "WindowWidth",
)  # fmt: skip


def write_with(path, keyword, value):
    """Write a good image, then put raw bytes into one element, whatever its type."""
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    write_dicom(path, pixels, Modality="DX", SOPClassUID=uid.DigitalXRayImageStorageForPresentation)
    whole = path.read_bytes()
    tag = int(tag_for_keyword(keyword) or 0)
    value += b" " * (len(value) % 2)
    kind = dictionary_VR(tag)[:2].encode()
    element = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, kind, len(value)) + value
    start, end = place_of(whole, tag), place_of(whole, tag + 1)  # what was there is replaced
    path.write_bytes(whole[:start] + element + whole[end:])
    return path


def place_of(whole, tag):
    """Return the position of an element, by walking over those before it."""
    place = 132 + 12 + int.from_bytes(whole[140:144], "little")
    while place < len(whole):
        group, element, kind, length = struct.unpack_from("<HH2sH", whole, place)
        if group << 16 | element >= tag:
            return place
        long = kind in (b"OB", b"OW", b"SQ", b"UN")
        place += 12 + struct.unpack_from("<L", whole, place + 8)[0] if long else 8 + length
    return place


@pytest.mark.parametrize("keyword", READ_BY_THE_DECODER)
def test_a_name_in_a_broken_element_stays_in_the_file(tmp_path, keyword):
    for number, name in enumerate(WRITTEN):
        path = write_with(tmp_path / f"{number}.dcm", keyword, name.encode("latin-1"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the readers keep them from the screen, too
            assert NAME not in images.told(path), name


@pytest.mark.parametrize("name", [*WRITTEN, "x\"y'JANE", "JANE O'"])
def test_a_library_that_quotes_a_name_is_not_repeated(name):
    for message in (f"Invalid value: {name!r}. See", f"Invalid value '{name}'", f"bad '{name}"):
        assert NAME not in images.plain_reason(ValueError(message))
    told = images.plain_reason(ValueError("'utf-8' codec can't decode byte 0xff"))
    assert told == "'...' codec can't decode byte 0xff"


# Other decoders


LOSSY = {uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEGLSNearLossless}
UNREAD_BY_GDCM = {"fo-dicom__GH364.dcm"}


def stored_by_gdcm(path):
    """The first frame as GDCM's own parser and codecs read it; GDCM leaves MONOCHROME1 alone."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    kind = image.GetPixelFormat()
    name = ("i" if kind.GetPixelRepresentation() else "u") + str(kind.GetBitsAllocated() // 8)
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    width, height = image.GetDimensions()[:2]
    values = np.frombuffer(buffer, "<" + name)[: width * height].reshape(height, width)
    unused = kind.GetBitsAllocated() - kind.GetBitsStored()
    return (values << unused) >> unused  # GDCM does not extend the sign of JPEG 2000


def displayed_by_pydicom(stored, header):
    """Greys 0 to 255, not rounded, of pydicom's own functions in the order of PS3.3 C.11."""
    values = apply_modality_lut(stored, header).astype(np.float64)
    if "VOILUTSequence" in header:
        bits = header.VOILUTSequence[0].LUTDescriptor[2]
        shown = apply_voi_lut(stored, header).astype(np.float64) / ((1 << bits) - 1)
    elif "WindowWidth" in header:
        shown = apply_windowing(apply_modality_lut(stored, header), header)
        low, high = output_range(header)
        shown = (shown - low) / (high - low)
    elif header.BitsStored <= 8:
        shown = values / 255
    else:
        low, high = np.percentile(values, [0.1, 99.9], method="inverted_cdf")
        shown = np.clip((values - low) / (high - low), 0, 1)
    return 255 * (1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown)


def output_range(header):
    """Return the range of pydicom's window: all that the bit depth holds, after the rescale."""
    least = -(1 << header.BitsStored - 1) if header.PixelRepresentation else 0
    ends = np.array([least, least + (1 << header.BitsStored) - 1], dtype=np.float64)
    ends = ends * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    return float(ends[0]), float(ends[1])


@pytest.mark.release
def test_odd_grey_files_agree_with_gdcm_and_pydicom(shared_data):
    compared = 0
    for path in sorted((shared_data / "dicom_odd").iterdir()):
        kind, *found = images.read(path)
        header = None if kind == "refused" else pydicom.dcmread(path, force=True)
        if header is None or not header.PhotometricInterpretation.startswith("MONO"):
            continue
        if path.name in UNREAD_BY_GDCM or "TransferSyntaxUID" not in header.get("file_meta", ()):
            continue
        lossy = header.file_meta.TransferSyntaxUID in LOSSY
        expected = displayed_by_pydicom(stored_by_gdcm(path), header)
        difference = np.abs(found[0] - expected)
        assert difference.max() <= (4 if lossy else 0.51), path.name
        assert difference.mean() <= (0.6 if lossy else 0.3), path.name
        compared += 1
    assert compared >= 20


@pytest.mark.release
def test_rsna_agrees_with_gdcm_up_to_what_jpeg_decoders_differ(shared_data):
    paths = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[::14][:50]
    assert len(paths) == 50
    for path in paths:
        difference = np.abs(images.read(path)[1] - stored_by_gdcm(path).astype(int))
        assert difference.max() <= 2
        assert difference.mean() <= 0.05


@pytest.mark.release
@pytest.mark.parametrize(
    ("pattern", "tolerance"),
    [
        ("rsna_png/**/*.png", 0),
        ("nih/images/*.png", 0),
        ("covid_hannover/**/*.png", 0),
        ("kermany_full/**/*.jp*g", 3),
        ("nih_mass_boxes/**/*.jpg", 3),
    ],
)
def test_images_agree_with_opencv(shared_data, pattern, tolerance):
    paths = sorted(shared_data.glob(pattern))[:5]
    assert paths
    for path in paths:
        other = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert np.abs(images.read(path)[1] - other.astype(int)).max() <= tolerance, path.name


# Other files


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_camera_rotation_is_applied_in_each_of_its_eight_forms(tmp_path, name):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    turned = {  # what EXIF 2.3 says of the first row and column: top left, top right, ...
        1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1], 5: grey.T,
        6: np.rot90(grey, 3), 7: grey[::-1, ::-1].T, 8: np.rot90(grey),
    }  # fmt: skip
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 98}}.get(name, {})
    for turn, expected in turned.items():
        exif = Image.Exif()
        exif[0x0112] = turn
        exif[0x010E] = "Synthetic chest X-ray, drawn by cxr synth: no patient"
        Image.fromarray(grey).save(tmp_path / name, exif=exif, **options)
        _, greys, facts, _ = images.read(tmp_path / name)
        np.testing.assert_allclose(greys, expected, atol=8 if name == "a.jpg" else 0)
        assert facts["synthetic"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_16_bit_tiff_of_either_byte_order_is_stretched_and_its_white_is_white(
    tmp_path, order, photometric
):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(FILM, photometric, order))
    kind, *found = images.read(path)
    if (order, photometric) == (">", 0):  # which Pillow does not read
        assert kind == "refused"
        return
    low, high = np.percentile(FILM, [0.1, 99.9], method="inverted_cdf")
    expected = np.clip((FILM - float(low)) / (high - low), 0, 1) * 255
    expected = expected if photometric else 255 - expected
    assert np.abs(found[0] - expected).max() <= 0.51


def tiff(values, photometric, order):
    """An uncompressed grey TIFF of 16 bits in one strip."""
    height, width = values.shape
    body = values.astype(f"{order}u2").tobytes()
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, photometric),
            (273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, height), (279, len(body))]  # fmt: skip
    start = b"II*\0" if order == "<" else b"MM\0*"
    found = start + struct.pack(f"{order}IH", 8, len(tags))
    found += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return found + bytes(4) + body


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff"])
def test_a_huge_image_is_refused_by_its_header(tmp_path, kind):
    content = bytearray(image_file(np.zeros((6, 8), np.uint8), kind))
    if kind == "png":
        content[16:24] = struct.pack(">II", 65535, 65535)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    elif kind == "jpeg":
        marker = content.index(b"\xff\xc0")
        content[marker + 5 : marker + 9] = struct.pack(">HH", 65535, 65535)
    elif kind == "gif":
        content[6:10] = struct.pack("<HH", 65535, 65535)
    elif kind == "bmp":
        content[18:26] = struct.pack("<ii", 65535, 65535)
    else:
        content = bytearray(tiff(np.zeros((6, 8), np.uint16), 1, "<"))
        content[18:22] = content[30:34] = struct.pack("<I", 65535)
    (tmp_path / "a").write_bytes(content)
    kind, line = images.read(tmp_path / "a")
    assert (kind, "larger than the limit" in line) == ("refused", True), line


def test_files_of_no_data_set_are_read_in_order_whatever_the_workers(tmp_path):
    for number in range(5):
        Image.fromarray(chest(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    paths = images.find_image_files([tmp_path, tmp_path / "0.png"])
    assert [path.name for path in paths] == [f"{number}.png" for number in range(5)]
    one, two = (images.read_loose(paths, workers) for workers in (1, 2))
    assert list(one) == list(two) == paths
    for path in paths:
        np.testing.assert_array_equal(one[path], two[path])
    assert str(paths[2]) in one[paths[2]]
    for wrong in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=wrong.name):
            images.find_image_files([wrong])


# Fingerprints


def stretched(pixels):
    low, high = np.percentile(pixels, (1, 99))
    return np.clip((pixels - low) * 255.0 / (high - low), 0, 255).astype(np.uint8)


def compressed_again(pixels, quality=50):
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def resized(pixels, width, height):
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


COPIES = {
    "stretched": stretched,
    "gamma": lambda pixels: (255 * (pixels / 255.0) ** 0.6).astype(np.uint8),
    "equalised": cv2.equalizeHist,
    "jpeg": compressed_again,
    "112 px": lambda pixels: resized(pixels, 112, 112),
    "squashed": lambda pixels: resized(pixels, 112, 150),
    "all at once": lambda pixels: compressed_again(resized(stretched(pixels), 112, 112), 75),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_keeps_its_fingerprint(change):
    for seed in range(10):
        pixels = chest(seed)
        hashes = images.perceptual_hash(pixels), images.perceptual_hash(COPIES[change](pixels))
        distance, turn = images.hash_distance(*hashes)
        assert (turn, distance <= 20) == ("as it is", True), seed


@pytest.mark.parametrize("turn", images.TURNS)
def test_a_turned_copy_is_known_with_its_turn(turn):
    for seed in range(5):
        turned = images.turn_image(chest(seed), turn)
        hashes = images.perceptual_hash(chest(seed)), images.perceptual_hash(turned)
        distance, found = images.hash_distance(*hashes)
        assert (found, distance <= 4) == (turn, True)


@pytest.mark.release
def test_different_radiographs_are_far_apart(shared_data):
    paths = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[::28][:25]
    hashes = [images.perceptual_hash(images.read(path)[1]) for path in paths]
    assert min(images.hash_distance(a, b)[0] for a, b in combinations(hashes, 2)) > 42


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (63, 65), (3000, 10)])
def test_odd_shapes_have_fingerprints_and_borders(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = images.perceptual_hash(pixels)
    assert found is None if pixels.size == 1 else len(found) == 64
    assert images.perceptual_hash(np.full(shape, 128, np.uint8)) is None
    assert images.greys_of_border(np.full(shape, 9, np.uint8)) == [9] * 16


def test_pieces_of_the_border_go_along_the_top_the_bottom_and_the_sides():
    image = np.zeros((40, 80), np.uint8)
    image[:4, :20], image[-4:, 60:], image[4:12, :8], image[28:36, 72:] = 10, 20, 30, 40
    greys = images.greys_of_border(image)
    assert {place: grey for place, grey in enumerate(greys) if grey} == {
        0: 10,
        7: 20,
        8: 30,
        15: 40,
    }


_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]


def png_rows(pixels, interlaced):
    """The lines of a PNG of 8-bit samples (H, W, C), each after the number of its filter."""
    passes = [*_PASSES, (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    parts = [pixels[y::step_y, x::step_x] for x, y, step_x, step_y in passes]
    return b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)


def png_file(rows, width, height, colour, interlaced):
    """A PNG of 8-bit samples around lines, each of its chunks whole."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced)
    data = zlib.compress(rows)
    chunks = [(b"IHDR", head), (b"IDAT", data[:20]), (b"IDAT", data[20:]), (b"IEND", b"")]
    framed = (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("interlaced", [0, 1], ids=["plain", "interlaced"])
@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("size", [(1, 9), (13, 8), (64, 50)])
def test_a_png_is_read_only_if_its_data_fill_all_rows(colour, samples, interlaced, size, tmp_path):
    """Decoders leave the lower part black without a word; a black border is no sign of it."""
    width, height = size
    pixels = np.random.default_rng(1).integers(1, 255, (height, width, samples), dtype=np.uint8)
    pixels[-1] = 0
    rows = png_rows(pixels, interlaced)
    path = tmp_path / "a.png"
    path.write_bytes(png_file(rows, width, height, colour, interlaced))
    assert images.read(path)[0] == "read"
    for lacking in (1, width * samples + 1, len(rows) // 2):
        path.write_bytes(png_file(rows[:-lacking], width, height, colour, interlaced))
        kind, line = images.read(path)
        assert kind == "refused"
        assert "a.png" in line
