"""Two real `ipt restore` of one folder into one target at the same time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ipt.model import InstructIPT
from ipt.photos.photo import Photo, read_photo, write_photo
from ipt.restoring.restore import restore_tasks

ROOT = Path(__file__).parents[2]
PICTURES = 8


@pytest.mark.slow
def test_each_file_is_whole_and_restored_by_one_or_both(tmp_path, make_config, fill_parameters):
    model = fill_parameters(InstructIPT(make_config()), 0, 0.1).eval()
    model.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        levels = rng.integers(0, 256, (150, 200, 3), np.uint8)
        photo = Photo(levels=levels, alpha=None, gray=False, format="PNG")
        write_photo(photo, levels, tmp_path / f"in/{number}.png")
    options = ["--task", "derain", "--model", "model", "--compare", "--json", "--precision", "fp32", "--tile", "128"]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "ipt.cli", "restore", "in", "-o", "out", *options], cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    reports = [
        {Path(line["file"]).name: line["status"] for line in map(json.loads, out.splitlines())} for out, _ in told
    ]
    for name in (f"{number}.png" for number in range(PICTURES)):
        statuses = {report[name] for report in reports}
        assert "restored" in statuses
        assert statuses <= {"restored", "skipped"}
        wanted = restore_tasks(
            model, read_photo(tmp_path / "in" / name).levels, ("derain",), precision="fp32", tile=128
        )
        assert np.array_equal(read_photo(tmp_path / "out" / name).levels, wanted)
        assert read_photo(tmp_path / "out" / f"{name}.compare.jpg").levels.shape == (150, 404, 3)
    assert len(list((tmp_path / "out").iterdir())) == 2 * PICTURES  # nothing under a temporary name
