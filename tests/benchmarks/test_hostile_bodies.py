"""What `make bench-hostile` sends is what docs/hardening.md says: each file is refused for what is wrong with it."""

import time

import pytest

from benchmarks.hostile_bodies import hostile_bodies, hostile_files
from ipt.photos.images import ImageError
from ipt.photos.photo import read_photo

REASONS = {
    "TIFF of 1000 entries to itself": "damaged or cut off",
    "TIFF with two widths": "it says that it is 20000 x 20000 pixels and 1 x 20000 as well",
    "TIFF of 2000 pages": "several pictures or pages",
    "EPS named jpg": "not one of JPEG, PNG",
    "PNG, 16 bits behind a text": "its first chunk is not IHDR",
    "JPEG of 500 scans": "more than 100 scans",
    "JPEG of 100 scans without an end": "truncated",
}


@pytest.fixture(scope="module")
def files():
    return hostile_files()


@pytest.mark.parametrize("name", REASONS)
def test_a_hostile_file_is_refused_for_what_is_wrong_with_it(files, name):
    started = time.process_time()
    with pytest.raises(ImageError, match=REASONS[name]):
        read_photo(files[name])
    assert time.process_time() - started < 3


def test_all_of_them_are_sent_and_one_that_crashes_its_decoder(files):
    bodies = hostile_bodies("b")
    assert all(content in bodies[name][0] for name, content in files.items())
    assert "HEIC that crashes its decoder" in bodies
