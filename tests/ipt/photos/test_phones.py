"""What phones save: HEIC and AVIF are read upright with their metadata, and written as JPEG or PNG."""

import io
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from ipt.model import InstructIPT
from ipt.photos.images import ImageError, read_image
from ipt.photos.photo import encode_photo, read_photo
from ipt.restoring.finding import find_photographs
from ipt.restoring.photographs import Request, restore_file

TAKEN, MAKER = 36867, 271


def picture(mode="RGB"):
    """Smooth, so that lossy files come close; no two of its turned versions are alike."""
    rows, columns = np.mgrid[0:48, 0:64]
    channels = [rows * 5, columns * 4, (rows + columns) * 2, np.full_like(rows, 200)]
    return Image.fromarray(np.stack(channels[: len(mode)], axis=2).astype(np.uint8), mode)


def saved(kind, mode="RGB", orientation=1):
    """The bytes of a file and the picture that it shows."""
    exif = Image.Exif()
    exif[274], exif[MAKER] = orientation, "a phone"
    buffer, image = io.BytesIO(), picture(mode)
    if kind == "HEIC":
        heif = pillow_heif.from_pillow(image)
        heif.info["exif"] = exif.tobytes()
        heif.save(buffer, quality=95, chroma=444)
    else:
        image.save(buffer, "AVIF", quality=95, subsampling="4:4:4", exif=exif)
    turned = {6: Image.Transpose.ROTATE_270}.get(orientation)
    return buffer.getvalue(), np.asarray(image.transpose(turned) if turned else image)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_pictures_of_phones_are_read_upright_and_become_jpeg_with_their_exif(kind, orientation):
    data, shown = saved(kind, orientation=orientation)
    photo = read_photo(data)
    assert photo.foreign
    assert photo.levels.shape == shown.shape
    assert np.abs(photo.levels.astype(int) - shown).mean() < 3
    written = Image.open(io.BytesIO(encode_photo(photo, photo.levels)))
    assert written.format == "JPEG"
    assert (written.getexif()[MAKER], written.getexif().get(274, 1)) == ("a phone", 1)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_transparency_makes_a_png(kind):
    data, shown = saved(kind, "RGBA")
    photo = read_photo(data)
    assert np.abs(photo.alpha.astype(int) - shown[..., 3]).max() <= 3
    assert Image.open(io.BytesIO(encode_photo(photo, photo.levels))).format == "PNG"


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_one_is_told(kind, keep):
    data = saved(kind)[0]
    with pytest.raises(ImageError, match="cannot be read as an image"):
        read_photo(data[: int(len(data) * keep)])


def test_heic_without_the_extra_is_told_with_the_command_and_the_rest_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "a.heic").write_bytes(saved("HEIC")[0])
    for read in (read_photo, read_image):
        with pytest.raises(ImageError, match=r"a\.heic: .*pip install 'instruct-ipt\[heic\]'"):
            read(tmp_path / "a.heic")
    assert read_photo(saved("AVIF")[0]).levels.shape == (48, 64, 3)


def test_in_a_folder_they_go_to_jpeg_or_the_format_that_is_asked_for(tmp_path):
    for name in ("a.heic", "b.AVIF", "c.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    for suffix, names in ((None, ["a.jpg", "b.jpg", "c.png"]), (".tif", ["a.tif", "b.tif", "c.tif"])):
        pairs = find_photographs([str(tmp_path / "in")], tmp_path / "out", suffix)
        assert [target.name for _, target in pairs] == names


def test_a_clean_one_becomes_what_its_name_says(tmp_path):
    """Others are copied byte for byte."""
    pillow_heif.from_pillow(Image.new("RGB", (20, 10), "gray")).save(tmp_path / "a.heic")  # nothing to restore
    report = restore_file(
        InstructIPT.from_pretrained(), tmp_path / "a.heic", tmp_path / "a.jpg", Request(task="denoise")
    )
    assert report.status == "unchanged"
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"
