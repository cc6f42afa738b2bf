"""Sources: what a folder lists, the bundled photographs, and the errors."""

import numpy as np
import pytest
from PIL import Image

from ipt.photos.file_processes import FileProcesses
from ipt.photos.images import read_image
from ipt.restoring.budget import FILES, PROCESS, MemoryBudget
from pipelines.common.params import Builtin, DeadLeaves, Folder, Source
from pipelines.pictures import sources
from pipelines.pictures.selection import inspect_pictures
from pipelines.pictures.sources import Picture, SourceError, list_pictures, read_picture


def folder_source(path):
    return Source(folder=Folder(str(path), (1.0,)), builtin=None, dead_leaves=None)


def test_folder_lists_every_kind_in_any_depth_sorted(tmp_path):
    wanted = ["a/z.JPG", "a/b/c.jpeg", "d.png", "e.WebP", "f.tif", "g.TIFF", "h.bmp"]
    for name in [*wanted, "notes.txt", ".hidden.png", ".cache/x.png", "a/.x/y.png", "noend"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    pictures = list_pictures(folder_source(tmp_path), 0)
    assert [p.name for p in pictures] == sorted(wanted)
    assert {p.source for p in pictures} == {str(tmp_path)}
    assert pictures[0].path == str(tmp_path / "a/b/c.jpeg")


def test_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere.*does not exist"):
        list_pictures(folder_source(tmp_path / "nowhere"), 0)


def test_file_in_place_of_a_folder_is_an_error(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="it is a file"):
        list_pictures(folder_source(tmp_path / "a.png"), 0)


def test_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="found none among 0 files"):
        list_pictures(folder_source(tmp_path), 0)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match="found none among 1 files"):
        list_pictures(folder_source(tmp_path), 0)


def test_files_of_other_kinds_in_a_folder_are_told(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.dng", ".e.dng"):
        (tmp_path / name).touch()
    assert len(list_pictures(folder_source(tmp_path), 0)) == 1
    assert f"folder {str(tmp_path)!r}: left out: 1 .dng, 2 .heic (read are " in capsys.readouterr().out


def test_builtin_photographs_can_all_be_read():
    pictures = list_pictures(Source(None, Builtin((1.0, 0.5)), None), 0)
    assert len(pictures) >= 8
    for picture in pictures:
        image = read_picture(picture)
        assert image.dtype == np.float32
        assert min(image.shape[:2]) >= 256
        assert image.shape[2] == 3
        assert np.ptp(image, axis=2).mean() > 0.01, f"{picture.name} has no colour"


def test_dead_leaves_depend_on_seed_and_index_alone():
    def draw(images, seed):
        source = Source(None, None, DeadLeaves(images, 32))
        return [read_picture(p) for p in list_pictures(source, seed)]

    two, three, other = draw(2, 1), draw(3, 1), draw(2, 2)
    assert [p.shape for p in two] == [(32, 32, 3)] * 2
    np.testing.assert_array_equal(two, three[:2])
    assert not np.array_equal(two[0], two[1])
    assert not np.array_equal(two[0], other[0])


def test_no_dead_leaves_is_an_error():
    with pytest.raises(SourceError, match="1 or more, got 0"):
        list_pictures(Source(None, None, DeadLeaves(0, 32)), 0)


def test_all_workers_together_read_within_the_one_budget(monkeypatch):
    monkeypatch.setattr(MemoryBudget, "of_what_is_free", lambda: MemoryBudget(4_000_000_000))
    monkeypatch.setattr(sources, "usable_cores", lambda: 4)
    with sources._files.__wrapped__() as files:
        assert 4 * (files._limits.memory + PROCESS) == 4_000_000_000 * FILES


def test_a_file_that_kills_its_reader_is_a_bad_picture_and_the_others_are_read(tmp_path, monkeypatch):
    with FileProcesses(program="hostile_file_process") as files:
        monkeypatch.setattr(sources, "_files", lambda: files)
        (tmp_path / "crash.png").write_bytes(b"crash")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "good.png")
        pictures = [Picture("folder", name, (1.0,), str(tmp_path / name)) for name in ("crash.png", "good.png")]
        usable, bad = inspect_pictures(pictures, 32, 32, map)
        assert [picture.name for picture, _ in usable] == ["good.png"]
        assert "its decoder crashed" in bad[0][1]
        assert np.array_equal(read_picture(pictures[1]), read_image(pictures[1].path))
