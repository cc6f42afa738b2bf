"""Manifests: bytes that depend on the files alone, and nothing in them that can be changed unseen."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common.manifest import DataFile, ManifestError, has_manifest, parse_manifest, read_manifest, remake
from pipelines.common.manifest import write_manifest as write

FILES = [DataFile(f"{split}/{n:05d}.parquet", (3, 3, n), (16, 20), 1000 + n, f"{n:064x}", f"{n:016x}")
         for split in ("val", "train") for n in range(4)]  # fmt: skip
DERAIN = Path("data/shards/derain")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("manifest")
    write(folder, FILES)
    return (folder / "manifest.jsonl").read_bytes()


def test_files_come_back_by_name_and_the_order_they_came_in_does_not_matter(tmp_path):
    assert not has_manifest(tmp_path)
    write(tmp_path, FILES)
    first = (tmp_path / "manifest.jsonl").read_bytes()
    write(tmp_path, iter(reversed(FILES)))
    assert (tmp_path / "manifest.jsonl").read_bytes() == first
    assert has_manifest(tmp_path)
    assert read_manifest(tmp_path) == sorted(FILES, key=lambda file: file.name)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]
    assert [json.loads(line)["name"] for line in first.splitlines()[1:]] == sorted(file.name for file in FILES)


def test_a_file_lies_where_its_content_says(tmp_path):
    assert FILES[1].address == f"files/00/{1:064x}.parquet"
    assert (FILES[0].split, FILES[-1].split) == ("val", "train")


def told(content: bytes) -> str | list[DataFile]:
    try:
        return parse_manifest(content, DERAIN)
    except ManifestError as error:
        return str(error)


@given(st.data())
def test_what_is_changed_by_hand_is_told_with_the_ways_to_mend_it(manifest, data):
    place = data.draw(st.integers(0, len(manifest) - 1))
    other = data.draw(st.sampled_from([b"", b"0", b"1", b"x", b"\n", manifest[place : place + 1] * 2]))
    changed = manifest[:place] + other + manifest[place + 1 :]
    answer = told(changed)
    if isinstance(answer, str):
        mend = "bring it back with `dvc checkout --force data/shards/derain`, or remake it with `dvc repro -f -s synth"
        assert re.match(r"data/shards/derain/manifest\.jsonl: damaged manifest \(", answer)
        assert mend in answer
    else:  # of the first line what does not count: spaces, and how many there are
        assert changed == manifest or place < manifest.index(b"\n")
        assert answer == sorted(FILES, key=lambda file: file.name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[:-1], "edited or cut short"),
        (lambda lines: [*lines[:-1], lines[-1].replace("1003", "1004")], "edited or cut short"),
        (lambda lines: [lines[0].replace('"manifest": 1', '"manifest": 2'), *lines[1:]], "of version 2, expected 1"),
        (lambda lines: lines[1:], "'manifest'"),
        (lambda lines: [], "Expecting value"),
        (lambda lines: ["[]", *lines[1:]], "list indices must be"),
    ],
)
def test_a_manifest_that_is_none_is_told(manifest, change, reason):
    lines = change(manifest.decode().splitlines())
    with pytest.raises(ManifestError, match=rf"damaged manifest \(.*{reason}"):
        parse_manifest("".join(f"{line}\n" for line in lines).encode(), DERAIN)


def test_a_file_is_listed_once(tmp_path):
    write(tmp_path, [*FILES, FILES[2]])
    with pytest.raises(ManifestError, match=r"val/00002\.parquet is listed more than once"):
        read_manifest(tmp_path)


def test_the_command_that_makes_a_folder_anew():
    assert remake(Path("/home/ada/photos/data/clean")) == "dvc repro -f -s prepare"
    assert remake(DERAIN) == "dvc repro -f -s synthesize@derain"
