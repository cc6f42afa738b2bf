"""Each way in which we write, killed before each of its system calls in turn: all of the old is found or all of the
new, and the next run ends with the new and nothing beside it. How: tests/crash_points.py."""

import itertools
import json
from pathlib import Path

import pytest
from crash_points import Crash, crash_points, tree

from ipt.network.checkpoint import load_checkpoint
from ipt.network.task_network import TaskNetwork
from ipt.weights import CheckpointError

MODELS = """
import torch
from pathlib import Path
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
layers = ("*.query_key_value", "*.project", "*.expand")
config = ModelConfig(("denoise", "derain"), 8, 2, (1, 1), 1, 4, 1.5, 2, layers)
def fill(network, number):
    torch.manual_seed(number)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()
def model(number):
    return fill(InstructIPT(config), number)
old_model, new = model(0), model(1)
"""


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "start"
    folder.mkdir()
    return folder


def shown(folder: Path) -> dict[str, bytes | None]:
    """What lies in a folder under names that are no temporary ones."""
    return {name: content for name, content in tree(folder).items() if not name.startswith(".")}


def check_old_or_new(crashes: list[Crash]) -> None:
    """All of the old until some call, all of the new from there on, and nothing but the new after the next run."""
    found = [shown(crash.found) for crash in crashes]
    old, new = found[0], found[-1]
    assert old != new
    changes = [number for number, (one, other) in enumerate(itertools.pairwise(found)) if one != other]
    assert len(changes) == 1, [crashes[number].call for number in changes]
    assert {tuple(each.items()) for each in found} == {tuple(old.items()), tuple(new.items())}
    for crash in crashes:
        assert tree(crash.after) == new, f"killed before {crash.call}"


@pytest.mark.parametrize("before", ["", "Path('a').write_text('old')", "Path('a').touch(0o600)"])
def test_a_file(start, before):
    setup = "from pathlib import Path\nfrom ipt.files import replace_file"
    write = "with replace_file(Path('a')) as file:\n    file.write_text('new' * 9999)"
    crashes = crash_points(start, write, setup, before and f"from pathlib import Path\n{before}")
    check_old_or_new(crashes)
    assert "rename" in [crash.call for crash in crashes]
    assert len(crashes) > 8
    if "0o600" in before:  # at no moment somebody else's to read
        modes = {path.stat().st_mode & 0o777 for crash in crashes for path in crash.found.iterdir()}
        assert modes == {0o600}


@pytest.mark.parametrize("before", ["", "(Path('out') / 'b').mkdir(parents=True)\nPath('out/b/c').write_text('old')"])
def test_a_folder(start, before):
    setup = "from pathlib import Path\nfrom pipelines.common.files import replace_folder"
    write = (
        "with replace_folder(Path('out')) as folder:\n    (folder / 'a').write_text('1')\n    (folder / 'b').mkdir()"
    )
    crashes = crash_points(start, write, setup, before and f"from pathlib import Path\n{before}")
    check_old_or_new(crashes)
    assert ("renameat2" in [crash.call for crash in crashes]) == bool(before)


def test_a_folder_where_the_system_cannot_exchange_two(start):
    """Between its two renames there is none for a moment; the next run, even one that fails, puts it back."""
    setup = (
        "import pipelines.common.files as files\nfrom pathlib import Path\nfiles._exchange = lambda one, other: False"
    )
    before = "with files.replace_folder(Path('out')) as folder:\n    (folder / 'old').touch()"
    write = "with files.replace_folder(Path('out')) as folder:\n    (folder / 'new').touch()"
    crashes = crash_points(start, write, setup, before)
    assert [crash.call for crash in crashes].count("rename") == 2
    assert [list(shown(crash.found)) for crash in crashes].count([]) == 1
    assert {tuple(shown(crash.found)) for crash in crashes} == {("out", "out/old"), (), ("out", "out/new")}
    assert all(list(tree(crash.after)) == ["out", "out/new"] for crash in crashes)
    failing = setup + "\ndef fail():\n    with files.replace_folder(Path('out')):\n        raise KeyError"
    for crash in crashes:
        if not shown(crash.found):
            write = "import contextlib\nwith contextlib.suppress(KeyError):\n    fail()"
            again = crash_points(crash.found, write, failing)
            assert list(tree(again[-1].found)) == ["out", "out/old"]


@pytest.mark.slow
def test_a_saved_model_is_the_old_the_new_or_refused(start):
    save = "def save(number):\n    save_model(fill(TaskNetwork(config), number), Path('m'))"
    crashes = crash_points(start, "save(1)", MODELS + save, "save(0)")
    refused, seen = [], []
    for crash in crashes:
        try:
            weights = load_checkpoint(TaskNetwork, crash.found / "m").state_dict()
            seen.append(weights["backbone.head.weight"].flatten().tolist())
        except CheckpointError as error:
            refused.append((crash.call, "model.safetensors: its SHA-256 is" in str(error)))
        load_checkpoint(TaskNetwork, crash.after / "m")
        assert tree(crash.after) == tree(crashes[-1].found)
    # From the name of the checksums to that of the weights; the config is the old one's to the byte.
    assert refused == [(call, True) for call in ("unlink", "openat", "fsync", "chmod", "rename")]
    assert sorted(map(seen.index, seen)) == list(map(seen.index, seen))  # first the old, then the new
    assert len({tuple(each) for each in seen}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_restored_picture_and_what_it_is_compared_with(start, overwrite):
    setup = MODELS + (
        "import cv2\nimport numpy as np\n"
        "from ipt.restoring.photographs import Request, restore_file\n"
        f"request = Request(task='derain', compare=True, overwrite={overwrite})\n"
        "pixels = np.arange(243, dtype=np.uint8).reshape(9, 9, 3)\n"
    )
    write = (
        "report = restore_file(new, Path('a.png'), Path('out/a.png'), request)\n"
        "assert report.status in ('restored', 'skipped'), report\n"
    )
    crashes = crash_points(start, write, setup, "cv2.imwrite('a.png', pixels)")
    whole = shown(crashes[-1].found / "out")
    assert list(whole) == ["a.png", "a.png.compare.jpg"]
    for crash in crashes:
        found = shown(crash.found / "out") if (crash.found / "out").is_dir() else {}
        assert found.items() <= whole.items(), f"killed before {crash.call}"
        assert tree(crash.after / "out") == whole, f"killed before {crash.call}"
        assert "a.png" not in found or "a.png.compare.jpg" in found  # one that is there counts as done
    assert sum(crash.call == "rename" for crash in crashes) == 2


@pytest.mark.slow
def test_a_training_checkpoint_and_which_is_the_last(start):
    """A worker's upload, on a disk: the last is always a whole one."""
    setup = """
from pathlib import Path
from types import SimpleNamespace
import ray.train
from pyarrow.fs import LocalFileSystem
from pipelines.cluster.checkpoints import Checkpoints, latest_checkpoint
from pipelines.cluster.storage import Patience, Storage
def upload(number):
    place = str(Path("runs/train-a").resolve())
    store = SimpleNamespace(experiment_fs_path=place, storage_filesystem=LocalFileSystem())
    ray.train.get_context = lambda: SimpleNamespace(get_storage=lambda: store)
    Path(f"made-{number}").mkdir(exist_ok=True)
    for name in ("model.safetensors", "training.pt"):
        Path(f"made-{number}", name).write_text(f"{number}" * 9)
    given = SimpleNamespace(path=f"made-{number}")
    state, patience = SimpleNamespace(step=number), Patience("here", 0, print)
    Checkpoints(state, Storage("runs"), "train-a", patience)._upload(given, f"checkpoint_{number}")
"""
    crashes = crash_points(start, "upload(2)", setup, "upload(1)")
    steps = []
    for crash in crashes:
        for folder in (crash.found, crash.after):
            run = folder / "runs/train-a"
            latest = json.loads((run / "latest.json").read_text())
            steps.append(latest["step"])
            assert latest["folder"] == f"checkpoint_{steps[-1]}"
            for name in ("model.safetensors", "training.pt"):
                assert (run / latest["folder"] / name).read_text() == f"{steps[-1]}" * 9
        assert steps[-1] == 2
        assert not list(crash.after.rglob("*.partial"))
    assert steps[::2] == sorted(steps[::2])
    assert set(steps[::2]) == {1, 2}


def test_a_run_that_is_removed_is_none_or_whole(start):
    setup = "from pipelines.cluster.storage import Storage"
    before = """
storage = Storage("runs")
for name in ("latest", "start", "format"):
    storage.write_json(f"train-a/{name}.json", {"folder": "checkpoint_1"})
for folder in ("checkpoint_1", "start"):
    storage.write_json(f"train-a/{folder}/weights", 1)
"""
    crashes = crash_points(start, "Storage('runs').remove('train-a')", setup, before)
    states = []
    for crash in crashes:
        run = crash.found / "runs/train-a"
        whole = all((run / folder / "weights").is_file() for folder in ("checkpoint_1", "start"))
        told = [name for name in ("latest", "start") if (run / f"{name}.json").is_file()]
        states.append((len(told), whole))
        assert whole or not told
        assert not (crash.after / "runs/train-a").exists()
    assert states[0] == (2, True)
    assert (0, False) in states


def test_what_is_published_is_whole_when_it_says_so(start):
    setup = "from pathlib import Path\nfrom pipelines.cluster.storage import Storage"
    before = "Path('shards').mkdir()\nfor name in 'ab':\n    Path('shards', name).write_text(name * 9)"
    crashes = crash_points(start, "Storage(str(Path('shared').resolve())).publish(Path('shards'))", setup, before)
    for folder in [folder for crash in crashes for folder in (crash.found, crash.after)]:
        complete = list(folder.glob("shared/data/*/complete.json"))
        assert complete or not folder.name.startswith("start-after")
        for each in complete:
            assert tree(each.parent / "shards") == {"a": b"a" * 9, "b": b"b" * 9}


def test_the_lock_of_make_repro_goes_with_who_held_it(start):
    setup = "import sys\nfrom pipelines import repro\nsys.argv = ['repro']\nrepro._repro = lambda *given: 0"
    crashes = crash_points(start, "assert repro.main() == 0", setup)
    assert "flock" in [crash.call for crash in crashes]
    assert all((crash.after / ".dvc/tmp/repro.lock").read_text() == "" for crash in crashes)


STAGES = {  # their writing, with as little as can be before it: `make(1)` makes the old, `make(0)` the new
    "prepare": """
from pathlib import Path
import cv2
import numpy as np
import pandas  # here, as pyarrow imports it when it is first used
from ipt.photos import images
from pipelines.common.params import Folder, Prepare, Source
from pipelines.pictures import sources
from pipelines.prepare import prepare
sources._files = lambda: images  # read in this process: what kills it knows no other
def make(old):
    if old:
        Path("in").mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
            cv2.imwrite(f"in/{number}.png", pixels)
    side = 16 if old else 8
    source = Source(Folder("in", (1.0,)), None, None)
    prepare(Prepare((source,), side, side, 0.5, 0.0, 1.0, 0, 0.0, 4), 0, Path("out"))
""",
    "synthesize": """
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pandas
from pipelines import synthesize as stage
from pipelines.cluster.storage import Storage
from pipelines.common.params import Synthesize, Task
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.data.tiles import open_tiles
stage.spread = map  # what workers make comes one by one, as it does from Ray
task = Task(1, 1.0, [{"GaussianNoise": {"sigma": [5, 50]}}], ("denoise",))
rows = [{"image_id": str(n), "source": "s", "clean": np.full((16, 16, 3), n, np.uint8), "height": 16, "width": 16}
        for n in range(5)]
def make(old):
    Path("clean").mkdir(exist_ok=True)
    for split in ("train", "val"):
        if old:
            write_rows(Path("clean", f"{split}.parquet"), rows, row_schema(CLEAN_COLUMNS, 16, 16), 4)
    tiles = {split: open_tiles(Path("clean", f"{split}.parquet").resolve()) for split in ("train", "val")}
    params = SimpleNamespace(synthesize=Synthesize(1, 4, 4), seed=old)
    stage.synthesize("denoise", task, params, tiles, Path("out"), Storage("runs"))
""",
    "understand": MODELS
    + """
from types import SimpleNamespace
from pipelines import understand as stage
ray = SimpleNamespace(storage="runs", address="local")
stage.open_tiles = stage.score_held_out = stage.score_estimator = stage.labelled_images = lambda *given: None
def make(old):
    made = old_model if old else new
    stage.fit_instructions, stage.fit_estimator = (lambda params: made.instruction), (lambda *given: made.estimator)
    stage.understand(SimpleNamespace(seed=0, tasks=(), ray=ray), Path("clean"), Path("out"))
""",
    "compress": MODELS
    + """
from pipelines.compress import compress
from ipt.weights import save_weights
def make(old):
    for name in ("trained", "understanding"):
        Path(name).mkdir(exist_ok=True)
    if old:
        network = TaskNetwork(config)
        save_model(network, Path("trained"))
        save_weights(old_model.instruction, Path("understanding/instruction.safetensors"))
        save_weights(old_model.estimator, Path("understanding/estimator.safetensors"))
    compress(Path("trained"), Path("understanding"), 1 + old, Path("out"))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_makes(start, stage):
    check_old_or_new(crash_points(start, "make(0)", STAGES[stage], "make(1)"))
