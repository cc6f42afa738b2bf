"""A checkpoint's files beside the tag that says what they were."""

import re

import pytest

from ipt.weights import CheckpointError
from pipelines.registry.integrity import check_files, file_hashes


@pytest.fixture
def checkpoint(tmp_path):
    for name in ("config.json", "part/model.safetensors", "part/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_the_files_that_were_registered_pass_wherever_they_lie(checkpoint, tmp_path_factory):
    tag = file_hashes(checkpoint)
    check_files(checkpoint, tag, "v")
    moved = tmp_path_factory.mktemp("other") / "checkpoint"
    checkpoint.rename(moved)
    check_files(moved, tag, "v")
    assert file_hashes(moved) == tag


@pytest.mark.parametrize("name", ["config.json", "part/model.safetensors", "part/.hidden"])
def test_a_changed_a_missing_and_an_extra_file_are_named_with_both_hashes(checkpoint, name, flip_bit):
    before = file_hashes(checkpoint)
    flip_bit(checkpoint / name)
    number = r"[0-9a-f]{12}\.\.\."
    told = (
        rf"^v: {re.escape(name)}: its SHA-256 is {number}, registered was {number}: damaged or changed; put the files"
    )
    with pytest.raises(CheckpointError, match=told):
        check_files(checkpoint, before, "v")
    changed = file_hashes(checkpoint)
    (checkpoint / name).unlink()
    with pytest.raises(
        CheckpointError, match=rf"^v: {re.escape(name)}: missing, registered with SHA-256 {number}; put"
    ):
        check_files(checkpoint, changed, "v")
    without = file_hashes(checkpoint)
    (checkpoint / name).write_text("x")
    with pytest.raises(CheckpointError, match=rf"^v: {re.escape(name)}: its .* {number}, and no file of this name was"):
        check_files(checkpoint, without, "v")


@pytest.mark.parametrize("tag", ["", "abc", "7", "[1]", "null", "{"])
def test_a_tag_that_is_none_of_ours_is_told(checkpoint, tag):
    with pytest.raises(CheckpointError, match="v: tag files_sha256: expected JSON of files and their SHA-256, got"):
        check_files(checkpoint, tag, "v")
