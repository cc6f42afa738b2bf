"""What becomes of one photograph, good or bad."""

import dataclasses
import errno
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from ipt.photos.photo import read_photo
from ipt.restoring import photographs
from ipt.restoring.finding import COMPARED
from ipt.restoring.photographs import Report, Request, check_request, restore_file
from ipt.restoring.restore import restore_image

DERAIN = Request(task="derain")


@pytest.fixture
def model(make_config, randomized):
    """A model that sees noise in every picture."""
    return sees(randomized(make_config()), "denoise")


def sees(model, damage):
    """Make the estimator sure of one damage; None: of none."""
    with torch.no_grad():
        model.estimator.score.weight.zero_()
        model.estimator.score.bias.zero_()
        if damage is not None:
            model.estimator.score.bias[(*model.config.tasks, "clean").index(damage)] = 6
    return model


def noise(height=24, width=30, channels=3, dtype=np.uint8):
    levels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    return levels[..., 0] if channels == 1 else levels


def saved(path, levels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise() if levels is None else levels).save(path, **options)
    return path


def hidden(folder):
    return [path.name for path in folder.rglob(".*")]


def in_format(tmp_path, name):
    """A file of the kind that `name` tells: gray.jpg, rgba.png."""
    kind, path = name.split(".")[0], tmp_path / "in" / name
    channels = {"gray": 1, "rgb": 3, "rgba": 4}[kind]
    return saved(path, noise(channels=channels))


@pytest.mark.parametrize("name", ["rgb.jpg", "gray.jpg", "rgb.png", "rgba.png", "rgba.webp", "rgb.tif", "rgb.bmp"])
def test_format_alpha_and_grayness_survive(model, tmp_path, name):
    source, target = in_format(tmp_path, name), tmp_path / "out" / name
    report = restore_file(model, source, target, DERAIN)
    assert (report.status, report.tasks, report.by, report.error) == ("restored", ("derain",), "task", None)
    assert (report.width, report.height) == (30, 24)
    before, after = read_photo(source), read_photo(target)
    with Image.open(source) as one, Image.open(target) as other:
        assert (one.format, one.mode, one.size) == (other.format, other.mode, other.size)
    if before.alpha is not None:
        assert np.array_equal(before.alpha, after.alpha)
    if name.endswith(("png", "tif", "bmp")):
        assert np.array_equal(after.levels, restore_image(model, before.levels, task="derain"))
    assert not np.array_equal(after.levels, before.levels)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", ["wide.png", "wide.tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bits_stay(model, tmp_path, name, alpha):
    source, target = tmp_path / name, tmp_path / "out" / name
    cv2.imwrite(str(source), noise(channels=4 if alpha else 3, dtype=np.uint16))
    assert restore_file(model, source, target, DERAIN).status == "restored"
    before, after = read_photo(source), read_photo(target)
    assert after.levels.dtype == np.uint16
    assert np.array_equal(after.levels, restore_image(model, before.levels, task="derain"))
    assert (after.levels & 255).std() > 30  # all 16 bits are in use
    assert (after.alpha is not None) == alpha
    assert not alpha or np.array_equal(after.alpha, before.alpha)


def test_camera_data_and_colour_profile_survive_and_the_picture_is_upright(model, tmp_path):
    exif, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif[0x010F], exif[0x0112] = "Maker", 6
    source = saved(tmp_path / "a.jpg", exif=exif, icc_profile=profile, dpi=(300, 300))
    for name in ("b.jpg", "b.png", "b.tif", "b.webp"):
        report = restore_file(model, source, tmp_path / name, DERAIN)
        assert report.error is None
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (24, 30)
            assert picture.info["icc_profile"] == profile
            assert picture.getexif()[0x010F] == "Maker"
            assert picture.getexif().get(0x0112, 1) == 1
            if name != "b.webp" and name != "b.tif":
                assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("seen", ["denoise", "clean"])
@pytest.mark.parametrize(
    ("name", "wanted", "kind", "mode"),
    [
        ("rgb.jpg", "b.png", "PNG", "RGB"),
        ("gray.jpg", "b.png", "PNG", "L"),
        ("rgb.png", "b.JPG", "JPEG", "RGB"),
        ("gray.png", "b.jpeg", "JPEG", "L"),
        ("rgba.png", "b.webp", "WEBP", "RGBA"),
        ("gray.png", "b.webp", "WEBP", "RGB"),
        ("rgba.png", "b.tif", "TIFF", "RGBA"),
        ("rgb.tif", "b.bmp", "BMP", "RGB"),
        ("gray.png", "b.bmp", "BMP", "L"),
        ("rgb.bmp", "b.tiff", "TIFF", "RGB"),
        ("rgba.webp", "b.png", "PNG", "RGBA"),
    ],
)
def test_another_suffix_is_another_format_also_for_a_clean_picture(model, tmp_path, seen, name, wanted, kind, mode):
    source, target = in_format(tmp_path, name), tmp_path / wanted
    report = restore_file(sees(model, seen), source, target, Request())
    assert report.status == ("unchanged" if seen == "clean" else "restored")
    with Image.open(target) as picture:
        assert (picture.format, picture.mode) == (kind, mode)
    before, after = read_photo(source), read_photo(target)
    expected = before.levels if seen == "clean" else restore_image(model, before.levels)
    if mode == "L":
        expected = np.rint(expected.mean(axis=2, keepdims=True))
    if kind not in ("JPEG", "WEBP"):
        assert np.abs(after.levels - expected).max() == 0
    if "A" in mode:
        assert np.array_equal(after.alpha, before.alpha)


def test_jpeg_and_jpg_are_one_format_and_a_wrong_suffix_keeps_the_format_inside(model, tmp_path):
    sees(model, "clean")
    source = saved(tmp_path / "a.jpeg")
    assert restore_file(model, source, tmp_path / "b.JPG", Request()).status == "unchanged"
    assert (tmp_path / "b.JPG").read_bytes() == source.read_bytes()
    wrong = saved(tmp_path / "wrong.jpg", format="PNG")
    restore_file(model, wrong, tmp_path / "out" / "wrong.jpg", DERAIN)
    assert read_photo(tmp_path / "out" / "wrong.jpg").format == "PNG"
    restore_file(model, wrong, tmp_path / "right.png", Request())
    assert (tmp_path / "right.png").read_bytes() == wrong.read_bytes()


def test_what_a_format_cannot_hold_is_refused_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "restore_tasks", None)
    wide, clear = tmp_path / "wide.png", saved(tmp_path / "clear.png", noise(channels=4))
    cv2.imwrite(str(wide), noise(dtype=np.uint16))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tuned = saved(tmp_path / "tuned.jpg", icc_profile=profile)
    gray_profile = profile[:16] + b"GRAY" + profile[20:]
    gray = saved(tmp_path / "gray.png", noise()[..., 0], icc_profile=gray_profile)
    linear, wide_gamut = PngInfo(), PngInfo()
    linear.add(b"gAMA", struct.pack(">L", 100000))
    wide_gamut.add(b"cICP", bytes([9, 16, 0, 1]))
    linear, wide_gamut = (
        saved(tmp_path / f"{name}.png", pnginfo=chunks) for name, chunks in (("a", linear), ("b", wide_gamut))
    )
    for source, suffix, reason in (
        (wide, ".jpg", "cannot hold its 16 bits per channel; name a .png or .tif file"),
        (wide, ".webp", "cannot hold its 16 bits"),
        (wide, ".bmp", "cannot hold its 16 bits"),
        (clear, ".jpg", "cannot hold its transparency; name a .png, .webp or .tif file"),
        (tuned, ".bmp", "cannot hold its colour profile; name a .png, .jpg"),
        (gray, ".webp", "cannot hold its gray, for which its colour profile is; name a .png, .jpg or .tif file"),
        (linear, ".jpg", "cannot hold what its chunk gAMA says of its colours; name a .png file"),
        (wide_gamut, ".tif", "cannot hold what its chunk cICP says of its colours; name a .png file"),
    ):
        report = restore_file(model, source, tmp_path / f"out{suffix}", DERAIN)
        assert report.status == "failed"
        assert report.error.startswith(f"{suffix} {reason}")
        assert not (tmp_path / f"out{suffix}").exists()


def test_a_gray_profile_goes_with_gray_pixels(model, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:16] + b"GRAY" + profile[20:]
    source = saved(tmp_path / "a.png", noise()[..., 0], icc_profile=profile)
    for name in ("b.jpg", "b.tif"):
        assert restore_file(model, source, tmp_path / name, DERAIN).status == "restored"
        photo = read_photo(tmp_path / name)
        assert (photo.gray, photo.icc) == (True, profile)


def test_alpha_that_hides_nothing_is_no_reason_to_refuse_jpeg(model, tmp_path):
    levels = noise(channels=4)
    levels[..., 3] = 255
    report = restore_file(model, saved(tmp_path / "a.png", levels), tmp_path / "b.jpg", DERAIN)
    assert report.status == "restored"
    assert read_photo(tmp_path / "b.jpg").format == "JPEG"


def test_a_clean_picture_is_copied_byte_for_byte(model, tmp_path):
    source, target = saved(tmp_path / "a.jpg", quality=30), tmp_path / "out" / "a.jpg"
    report = restore_file(sees(model, "clean"), source, target, Request())
    assert (report.status, report.tasks, report.by) == ("unchanged", (), "blind")
    assert report.probabilities["clean"] > 0.9
    assert target.read_bytes() == source.read_bytes()


def test_a_picture_that_nothing_can_be_done_for_is_copied_too(model, tmp_path):
    source, target = saved(tmp_path / "a.jpg", np.full((9, 9, 3), 77, np.uint8)), tmp_path / "out" / "a.jpg"
    assert restore_file(model, source, target, DERAIN).status == "unchanged"
    assert target.read_bytes() == source.read_bytes()


def test_strength_and_tiles_do_what_they_say(model, tmp_path):
    source = saved(tmp_path / "a.png", noise(100, 90))
    whole, tiled, half = (tmp_path / name for name in ("whole.png", "tiled.png", "half.png"))
    restore_file(model, source, whole, DERAIN)
    restore_file(model, source, tiled, dataclasses.replace(DERAIN, tile=88))
    restore_file(model, source, half, dataclasses.replace(DERAIN, strength=0.5))
    levels = [read_photo(path).levels.astype(int) for path in (whole, tiled, half)]
    assert np.abs(levels[0] - levels[1]).mean() < 0.1  # attention sees the whole tile
    assert np.abs(levels[0] - levels[2]).mean() > 1


def test_tiles_take_no_more_memory_than_is_said(model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "ipt.restoring.restore.affordable_tile", lambda *arguments: asked.append(arguments[-1]) or 10_000
    )
    restore_file(model, saved(tmp_path / "a.png"), tmp_path / "b.png", DERAIN, memory=123)
    assert asked == [123]


def damaged(tmp_path, how):
    path = tmp_path / "bad.jpg"
    if how == "folder":
        path.mkdir()
    elif how == "truncated":
        whole = saved(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "animation":
        frames = [Image.fromarray(noise()), Image.fromarray(noise()[::-1].copy())]
        frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])
    elif how != "missing":
        path.write_bytes({"empty": b"", "text": b"I am not a picture"}[how])
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "cannot be read as an image: the file is empty"),
        (
            "text",
            "cannot be read as an image: not one of JPEG, PNG, WEBP, TIFF, BMP, AVIF, or damaged in its first bytes",
        ),
        ("truncated", "cannot be read as an image: "),
        ("folder", "cannot be read as an image: Is a directory"),
        ("missing", "cannot be read as an image: No such file or directory"),
        ("animation", "cannot be read as an image: several pictures or pages; expected one"),
    ],
)
def test_a_bad_file_is_told_in_the_report_and_leaves_nothing(model, tmp_path, how, message):
    source = damaged(tmp_path, how)
    report = restore_file(model, source, tmp_path / "out" / "bad.jpg", Request())
    assert report.status == "failed"
    assert report.error.startswith(message)  # the file's name stands in the report beside it
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_skipped_or_replaced(model, tmp_path):
    source, target = saved(tmp_path / "a.png"), tmp_path / "b.png"
    target.write_bytes(b"mine")
    assert restore_file(model, source, target, DERAIN).status == "skipped"
    assert target.read_bytes() == b"mine"
    again = dataclasses.replace(DERAIN, overwrite=True)
    assert restore_file(model, source, target, again).status == "restored"
    assert read_photo(target).format == "PNG"


def test_what_a_full_disk_or_a_crash_left_empty_is_done_again(model, tmp_path):
    source, request = saved(tmp_path / "a.png"), dataclasses.replace(DERAIN, compare=True)
    for name in ("b.png", f"b.png{COMPARED}"):
        (tmp_path / name).touch()
    assert restore_file(model, source, tmp_path / "b.png", request).status == "restored"
    assert read_photo(tmp_path / "b.png").levels.shape == (24, 30, 3)
    assert read_photo(tmp_path / f"b.png{COMPARED}").levels.shape == (24, 64, 3)


def test_a_pipe_in_the_place_of_the_target_is_no_empty_file(model, tmp_path):
    os.mkfifo(tmp_path / "b.png")
    assert restore_file(model, saved(tmp_path / "a.png"), tmp_path / "b.png", DERAIN).status == "skipped"
    assert (tmp_path / "b.png").is_fifo()


@pytest.mark.parametrize("how", ["same", "link", "other spelling"])
def test_the_input_itself_is_replaced_only_when_asked_for(model, tmp_path, how):
    source = saved(tmp_path / "a.png")
    target = {"same": source, "link": tmp_path / "b.png", "other spelling": tmp_path / "." / "x" / ".." / "a.png"}[how]
    (tmp_path / "x").mkdir()
    if how == "link":
        target.symlink_to(source)
    before = source.read_bytes()
    report = restore_file(model, source, target, DERAIN)
    assert report.status == "failed"
    assert report.error.startswith("the restored version would replace it; ")
    assert source.read_bytes() == before
    assert restore_file(model, source, target, dataclasses.replace(DERAIN, overwrite=True)).status == "restored"
    assert target.read_bytes() != before
    assert (source.read_bytes() == before) == (how == "link")


@pytest.mark.parametrize("in_the_way", ["file as folder", "file as deep folder", "folder as file"])
def test_an_output_that_cannot_be_written_is_named(model, tmp_path, in_the_way):
    source = saved(tmp_path / "a.png")
    (tmp_path / "out").write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    target, message = {
        "file as folder": ("out/a.png", f"cannot write {tmp_path}/out/a.png: {tmp_path}/out is no folder"),
        "file as deep folder": ("out/deep/a.png", f"cannot write {tmp_path}/out/deep/a.png: Not a directory"),
        "folder as file": ("folder.png", f"{tmp_path}/folder.png is a folder"),
    }[in_the_way]
    for overwrite in (False, True):
        report = restore_file(model, source, tmp_path / target, dataclasses.replace(DERAIN, overwrite=overwrite))
        assert (report.status, report.error) == ("failed", message)
    assert (tmp_path / "out").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "remedy"), [("a" * 252 + ".png", ""), ("a" * 240 + f".jpg{COMPARED}", ", or leave --compare out")]
)
def test_a_name_that_is_too_long_is_told_before_any_work(model, tmp_path, monkeypatch, name, remedy):
    monkeypatch.setattr(photographs, "restore_tasks", None)
    source, target = saved(tmp_path / "a.jpg"), tmp_path / "out" / name.removesuffix(COMPARED)
    target.parent.mkdir()
    report = restore_file(model, source, target, dataclasses.replace(DERAIN, compare=bool(remedy)))
    reason = f"cannot write {tmp_path}/out/{name}: File name too long; give {source} a shorter name{remedy}"
    assert (report.status, report.error) == ("failed", reason)


@pytest.mark.parametrize("seen", ["denoise", "clean"])
def test_a_full_disk_leaves_nothing_half_written_and_the_old_file(model, tmp_path, monkeypatch, seen):
    def half(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    monkeypatch.setattr("shutil.copyfile", lambda source, target: half(target, source.read_bytes()))
    source, target, old = saved(tmp_path / "a.png"), tmp_path / "out" / "a.png", tmp_path / "old.png"
    old.write_text("mine")
    sees(model, seen)
    for path in (target, old):
        report = restore_file(model, source, path, Request(overwrite=True))
        assert (report.status, report.error) == ("failed", f"cannot write {path}: No space left on device")
    assert list((tmp_path / "out").iterdir()) == []
    assert old.read_text() == "mine"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
    ],
)
def test_a_picture_too_large_for_the_memory_is_told_and_is_no_reason_to_stop(model, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(photographs, "restore_tasks", fail)
    report = restore_file(model, saved(tmp_path / "a.png"), tmp_path / "b.png", DERAIN)
    assert (report.status, report.error) == ("failed", "out of memory; try a smaller --tile")


def test_an_encoder_that_refuses_fails_the_file_alone(model, tmp_path):
    """A JPEG has 64 KB for XMP."""
    source = saved(tmp_path / "a.tif", tiffinfo={700: b"<x:xmpmeta>" + bytes(70_000)})
    report = restore_file(model, source, tmp_path / "b.jpg", DERAIN)
    assert report.status == "failed"
    assert report.error
    assert "\n" not in report.error
    assert not (tmp_path / "b.jpg").exists()


@pytest.mark.parametrize(("name", "dtype"), [("a.jpg", np.uint8), ("a.png", np.uint16)])
def test_a_comparison_stands_beside_the_restored_file(model, tmp_path, name, dtype):
    source, target = tmp_path / name, tmp_path / "out" / name
    cv2.imwrite(str(source), cv2.GaussianBlur(noise(dtype=dtype), (7, 7), 2))
    restore_file(model, source, target, dataclasses.replace(DERAIN, compare=True))
    assert sorted(path.name for path in target.parent.iterdir()) == [name, f"{name}{COMPARED}"]
    sheet = read_photo(target.with_name(f"{name}{COMPARED}"))
    assert (sheet.format, sheet.levels.shape) == ("JPEG", (24, 64, 3))
    assert (sheet.levels[:, 31:33] > 240).all()
    shift = 8 if dtype == np.uint16 else 0
    for part, path in ((sheet.levels[:, :29], source), (sheet.levels[:, 35:], target)):
        levels = read_photo(path).levels >> shift
        levels = levels[:, :29] if path == source else levels[:, 1:]
        assert np.abs(part.astype(int) - levels).mean() < 6


def test_a_panorama_is_compared_one_above_the_other(model, tmp_path):
    source = saved(tmp_path / "a.jpg", noise(2, 33_000))
    request = dataclasses.replace(DERAIN, compare=True)
    assert restore_file(model, source, tmp_path / "b.jpg", request).status == "restored"
    assert read_photo(tmp_path / f"b.jpg{COMPARED}").levels.shape == (8, 33_000, 3)


def test_a_file_counts_as_done_only_with_its_comparison(model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source, target, request = saved(tmp_path / "a.jpg"), tmp_path / "b.jpg", dataclasses.replace(DERAIN, compare=True)
    with monkeypatch.context() as patch:
        patch.setattr(photographs, "_write_comparison", fail)
        assert restore_file(model, source, target, request).status == "failed"
    assert not target.exists()
    assert restore_file(model, source, target, request).status == "restored"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(task="derian"), "unknown task 'derian'; did you mean 'derain'"),
        (Request(task="paint"), "unknown task 'paint'; this model knows denoise, derain, deblur"),
        (Request(task="derain", instruction="remove the rain"), "expected a task or an instruction, got both"),
        (Request(instruction="rain " * 2000), "instruction: expected at most 2000 characters, got 10000"),
        (Request(strength=9), r"strength: expected 0.0 to 1.5, got 9"),
        (Request(strength=-0.1), "strength: expected"),
        (Request(strength=float("nan")), "strength: expected"),
        (Request(tile=5), r"tile: expected at least \d+ pixels"),
        (Request(task="derain", tile=83), r"tile: expected at least 84 pixels"),
    ],
)
def test_what_would_go_wrong_with_every_file_is_told_at_once(model, request_, message):
    for seen in ("clean", "denoise"):
        with pytest.raises(ValueError, match=message):
            check_request(sees(model, seen), request_)


def test_a_request_that_can_be_done_passes(model):
    for request in (Request(), DERAIN, Request(tile=84), Request(instruction="", strength=1.5), Request(strength=0)):
        check_request(model, request)


def test_a_report_goes_to_json_and_back():
    report = Report(
        "a.jpg", "b.jpg", "restored", ("denoise",), "blind", (), {"denoise": 0.9, "clean": 0.1}, 3, 4, 0.5
    )  # fmt: skip
    assert "\n" not in report.to_json()
    assert Report.from_json(report.to_json()) == report
    odd = Report("a\udcff.jpg", "b", "failed", error="no\nsuch")
    assert Report.from_json(odd.to_json()) == odd
