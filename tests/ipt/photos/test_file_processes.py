"""Files in processes that can be killed: the same as without, and one bad file costs one error, whatever it does."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from hostile_file_process import ACTIONS, VALUES
from PIL import Image

from ipt.photos import child
from ipt.photos.child import Call, Limits
from ipt.photos.file_processes import FileProcesses, GaveUpError
from ipt.photos.images import ImageError, TooManyPixelsError, read_image, read_thumbnail
from ipt.photos.look import look, preview
from ipt.photos.photo import encode_photo, read_photo, write_photo

ROOT = Path(__file__).parents[3]
LIMITS = Limits(pixels=1_000_000, memory=300_000_000, seconds=30, cpu_seconds=0.5)
ICC, EXIF = b"a profile", b"II*\0\x08\0\0\0\0\0\0\0\0\0"


def encoded(kind="PNG", mode="RGB", seed=0, **options):
    levels = np.random.default_rng(seed).integers(0, 256, (24, 20, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def wide_tiff():
    from ipt.photos import tiff

    return tiff.encode(np.random.default_rng(1).integers(0, 65536, (24, 20, 4), np.uint16), "<", {}, tiff.DEFLATE)


FILES = {
    "jpeg": encoded("JPEG", dpi=(72, 300), icc_profile=ICC, exif=EXIF, comment=b"hello"),
    "gray jpeg": encoded("JPEG", "L"),
    "cmyk": encoded("JPEG", "CMYK"),
    "png": encoded(icc_profile=ICC),
    "alpha": encoded(mode="RGBA"),
    "gray alpha": encoded(mode="LA"),
    "palette": encoded(mode="P"),
    "webp": encoded("WEBP", lossless=True),
    "tiff": encoded("TIFF", compression="tiff_lzw"),
    "wide tiff": wide_tiff(),
    "bmp": encoded("BMP"),
    "avif": encoded("AVIF"),
}


@pytest.fixture(scope="module")
def files():
    with FileProcesses(1) as files:
        yield files


@pytest.fixture(scope="module")
def hostile():
    with FileProcesses(2, LIMITS, "hostile_file_process") as files:
        yield files


def same(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (np.array_equal(a, b) and a.dtype == b.dtype) if isinstance(a, np.ndarray) else a == b, field.name


@pytest.mark.parametrize("name", FILES)
def test_a_photograph_is_what_it_is_without_processes(files, tmp_path, name):
    data, path = FILES[name], tmp_path / name
    path.write_bytes(data)
    photo = read_photo(data)
    for source in (data, path, str(path)):
        same(files.read_photo(source), photo)
    levels = photo.levels[::-1].copy()
    assert files.encode_photo(photo, levels) == encode_photo(photo, levels)
    assert files.preview(photo, levels) == preview(photo, levels)
    assert files.look(data, 1000) == look(photo)
    assert files.restored_file(photo, levels, b"original", True) == (
        encode_photo(photo, levels) if photo.foreign else b"original"
    )
    files.write_photo(photo, levels, tmp_path / "files" / "there")
    write_photo(photo, levels, tmp_path / "here")
    assert (tmp_path / "files" / "there").read_bytes() == (tmp_path / "here").read_bytes()
    assert np.array_equal(files.read_image(path), read_image(path))
    image, size = files.read_thumbnail(path, 4)
    wanted, wanted_size = read_thumbnail(path, 4)
    assert np.array_equal(image, wanted)
    assert size == wanted_size


@pytest.mark.parametrize("has", [False, True], ids=["streams", "a file on a disk"])
def test_a_system_without_shared_memory_has_other_ways(monkeypatch, has):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    if not has:
        monkeypatch.setattr(child, "_new_file", lambda: None)
    with FileProcesses(1) as files:
        for name in ("alpha", "wide tiff"):
            photo = read_photo(FILES[name])
            same(files.read_photo(FILES[name]), photo)
            assert files.encode_photo(photo, photo.levels) == encode_photo(photo, photo.levels)


def test_errors_are_what_they_are_without_processes(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.png").write_bytes(FILES["png"][:300])
    for source in ("missing.jpg", "cut.png", tmp_path / "cut.png", b"", b"nothing", FILES["jpeg"][:100]):
        with pytest.raises(ImageError) as wanted:
            read_photo(source)
        with pytest.raises(ImageError) as got:
            files.read_photo(source)
        assert str(got.value) == str(wanted.value)
        assert type(got.value) is type(wanted.value)
    with pytest.raises(TooManyPixelsError, match="the limit is 100 in all"):
        files.read_photo(FILES["png"], 100)
    photo = read_photo(FILES["png"])
    with pytest.raises(ValueError, match="levels: expected uint8"):
        files.encode_photo(photo, photo.levels.astype(np.float32))
    long = dataclasses.replace(photo, levels=np.zeros((1, 20_000, 3), np.uint8), format="WEBP")
    with pytest.raises(type(error_of(encode_photo, long, long.levels))):
        files.encode_photo(long, long.levels)


def error_of(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever it is
        function(*arguments)
    return caught.value


WORDS = {
    b"sleep": "gave up after 0.5 seconds; save it anew",
    b"compute": "gave up after 0.5 seconds of computing",
    b"crash": r"its decoder crashed \(SIGABRT\)",
    b"allocate": None,  # a MemoryError
    b"exit": r"its decoder crashed \(status 0\)",
    b"fork": "gave up after 0.5 seconds",
    b"garbage": "its decoder answered nonsense",
    b"no JSON": "its decoder answered nonsense",
    b"deep": "its decoder answered nonsense",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("action", ACTIONS)
def test_a_bad_file_costs_one_error_and_the_next_one_is_read(action):
    limits = dataclasses.replace(LIMITS, seconds=0.5) if action in (b"sleep", b"fork") else LIMITS
    with FileProcesses(1, limits, "hostile_file_process") as files:
        files.read_photo(FILES["png"])
        if WORDS[action] is None:
            with pytest.raises(MemoryError):
                files.read_photo(action)
        else:
            started = time.monotonic()
            with pytest.raises(GaveUpError, match=f"^image: {WORDS[action]}"):
                files.read_photo(action)
            assert time.monotonic() - started < (2.5 if action == b"fork" else 20)
        same(files.read_photo(FILES["jpeg"]), read_photo(FILES["jpeg"]))


@pytest.mark.parametrize("what", [*VALUES, "more texts", "no pixels", "other alpha", "missing"])
def test_an_answer_that_cannot_be_is_not_believed(hostile, what):
    with pytest.raises(GaveUpError, match="answered nonsense"):
        hostile.read_photo(b"lie " + what.encode() + b"|" + FILES["png"])
    assert hostile.read_photo(b"lie nothing|" + FILES["png"]).levels.shape == (24, 20, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what a process has")
def test_a_file_that_crashes_a_library_costs_one_error(tmp_path):
    pytest.importorskip("pi_heif")
    good = tmp_path / "good.png"
    good.write_bytes(FILES["png"])
    with FileProcesses(1) as files:
        with pytest.raises(ImageError):  # found by fuzzing; in the process that asks, it would be a SIGSEGV
            files.read_photo(ROOT / "tests/fixtures/crashes_pi_heif_1.4.0.heic")
        same(files.read_photo(good), read_photo(good))


def test_what_files_leave_in_memory_is_not_missing_to_the_next_ones(hostile):
    """200 MB of each, where a process may have 300."""
    for _ in range(6):
        assert hostile.read_photo(b"leak " + FILES["png"]).levels.shape == (24, 20, 3)


def test_good_files_are_read_beside_bad_ones(hostile):
    wanted = read_photo(FILES["jpeg"])

    def one(number):
        if number % 8 == 0:
            with pytest.raises(GaveUpError):
                hostile.read_photo([b"crash", b"garbage", b"exit"][number // 8 % 3])
        else:
            same(hostile.read_photo(FILES["jpeg"]), wanted)

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(one, number) for number in range(40)]:
            future.result(60)


def test_what_is_given_up_frees_its_process_and_nobody_elses(hostile):
    call, gone, errors = Call(), Call(), []
    gone.cancel()
    with pytest.raises(GaveUpError, match="nobody waits"):
        hostile.read_photo(FILES["png"], call=gone)

    def read():
        errors.append(error_of(lambda: hostile.read_photo(b"sleep", call=call)))

    hostile.read_photo(FILES["png"])
    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    started = time.monotonic()
    call.cancel()
    thread.join(5)
    assert time.monotonic() - started < 1
    assert "nobody waits" in str(errors[0])
    done = Call()
    hostile.read_photo(FILES["png"], call=done)
    done.cancel()  # too late to do harm
    hostile.read_photo(FILES["png"])


def test_closing_ends_all_processes_and_what_waits(tmp_path):
    before = set(psutil.Process().children())
    files, errors = FileProcesses(2, LIMITS, "hostile_file_process"), []
    thread = threading.Thread(target=lambda: errors.append(error_of(lambda: files.read_photo(b"sleep"))))
    thread.start()
    time.sleep(0.1)
    assert len(set(psutil.Process().children()) - before) == 2
    files.close()
    thread.join(5)
    assert isinstance(errors[0], GaveUpError)
    assert set(psutil.Process().children()) == before
    with pytest.raises(RuntimeError, match="were closed"):
        files.read_photo(FILES["png"])
    forgotten = FileProcesses(1)
    del forgotten
    assert set(psutil.Process().children()) == before


def test_where_no_process_starts_it_is_said_so_and_no_file_is_blamed():
    with FileProcesses(1, LIMITS, "no_such_module") as files, pytest.raises(RuntimeError, match="could be started"):
        files.read_photo(FILES["png"])


STARTS = """
import json, sys, psutil
from ipt.photos.file_processes import FileProcesses
files = FileProcesses(2, program="hostile_file_process")
assert "torch" not in sys.modules
print(json.dumps([child.pid for child in psutil.Process().children()]), flush=True)
files.read_photo(sys.argv[1].encode())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells a process of its parent's end")
@pytest.mark.parametrize("action", ["sleep", "compute"])
def test_when_the_parent_is_killed_its_processes_end(action):
    command = [sys.executable, "-c", STARTS, action]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        children = [psutil.Process(number) for number in json.loads(parent.stdout.readline())]
        assert len(children) == 2
        time.sleep(1)
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_the_folder_it_stands_in_cannot_put_its_own_modules_in_between(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    with FileProcesses(1) as files:
        assert files.read_photo(FILES["png"]).levels.shape == (24, 20, 3)


def test_a_process_knows_no_torch_and_is_the_first_to_go(tmp_path):
    known = set(psutil.Process().children())
    with FileProcesses(1) as files:
        files.read_photo(FILES["png"])
        (process,) = set(psutil.Process().children()) - known
        assert not [one for one in process.memory_maps() if "torch" in one.path]
        if sys.platform.startswith("linux"):
            assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
            assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
            assert process.rlimit(psutil.RLIMIT_DATA)[1] < 20e9
