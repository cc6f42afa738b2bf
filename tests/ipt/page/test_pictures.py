"""What a browser is shown of a picture has the picture's colours."""

import struct

import pytest
from PIL.PngImagePlugin import PngInfo

from ipt.photos.look import preview
from ipt.photos.photo import read_photo


@pytest.mark.parametrize(("gamma", "kind"), [(45455, "JPEG"), (100000, "PNG")])
def test_what_a_png_says_of_its_colours_goes_along(encoded, gamma, kind):
    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">L", gamma))
    chunks.add_text("Author", "Ada")
    photo = read_photo(encoded(pnginfo=chunks))
    content, media = preview(photo, photo.levels)
    assert media == f"image/{kind.lower()}"
    expected = ((b"gAMA", struct.pack(">L", gamma)),) if kind == "PNG" else ()
    assert read_photo(content).pieces == expected
