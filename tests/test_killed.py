"""Each way in which we write, killed before each of its system calls in turn: all of the old is found or all of the
new, and the next run ends with the new and nothing beside it. How: tests/crash_points.py. What runs and data have in
`ray.storage`: tests/test_killed_storage.py; stages and commands: tests/test_killed_stages.py."""

import pytest
from crash_points import MODELS, check_old_or_new, crash_points, shown, tree

from ipt.diffusion.denoiser import load_denoiser
from ipt.network.checkpoint import load_checkpoint
from ipt.network.modulation import task_parameters
from ipt.network.task_network import TaskNetwork
from ipt.weights import CheckpointError


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
    assert refused == [(call, True) for call in ("fsync", "unlink", "openat", "fsync", "chmod", "rename")]
    assert sorted(map(seen.index, seen)) == list(map(seen.index, seen))  # first the old, then the new
    assert len({tuple(each) for each in seen}) == 2


ADAPTERS = """
import torch
from pathlib import Path
from diffusers import DDPMScheduler, UNet2DModel
from ipt.diffusion import modulate_denoiser, save_adapter
from ipt.network.modulation import task_parameters
scheduler = DDPMScheduler()
def network():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DModel(8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, **blocks)
def denoiser(number):
    made = modulate_denoiser(network(), scheduler, [300 + number], 1)
    for factor in task_parameters(made):
        torch.nn.init.constant_(factor, number)
    return made
made = [denoiser(number) for number in range(2)]
"""


@pytest.mark.slow
def test_a_saved_adapter_is_the_old_the_new_or_refused(start):
    """Of one backbone, so that its fingerprint tells nothing."""
    names: dict = {}
    exec(ADAPTERS, names)
    crashes = crash_points(start, "save_adapter(made[1], Path('m'))", ADAPTERS, "save_adapter(made[0], Path('m'))")
    refused, seen = [], []
    for crash in crashes:
        try:
            found = load_denoiser(names["network"](), crash.found / "m", names["scheduler"])
            numbers = {float(value) for factor in task_parameters(found) for value in factor.detach().flatten()}
            seen.append((int(found.interval_of_timestep[300]), numbers))
        except ValueError as error:
            refused.append((crash.call, "is not the one that noise_levels.json was written with" in str(error)))
        assert tree(crash.after) == tree(crashes[-1].found)
    # From one name to the other.
    assert refused == [(call, True) for call in ("fsync", "unlink", "openat", "fsync", "chmod", "rename")]
    first, last = (1, {0.0}), (0, {1.0})
    assert seen == [first] * seen.count(first) + [last] * seen.count(last)
    assert seen.count(first)
    assert seen.count(last)


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


def test_the_lock_of_make_repro_goes_with_who_held_it(start):
    setup = "import sys\nfrom pipelines import repro\nsys.argv = ['repro']\nrepro._repro = lambda *given: 0"
    crashes = crash_points(start, "assert repro.main() == 0", setup)
    assert "flock" in [crash.call for crash in crashes]
    assert all((crash.after / ".dvc/tmp/repro.lock").read_text() == "" for crash in crashes)
