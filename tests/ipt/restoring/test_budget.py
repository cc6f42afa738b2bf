"""One budget: what it gives to all at once is never more than there is."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ipt.network.config import preset_config
from ipt.restoring import budget, memory
from ipt.restoring.budget import LEAST_FILE, LEAST_TILE, MemoryBudget, file_limits
from ipt.restoring.free_memory import free_memory
from ipt.restoring.memory import KEPT, affordable_tile, bytes_per_pixel

MIB = 2**20


@given(st.integers(0, 10**13), st.integers(1, 64), st.integers(1, 64))
def test_shares_never_add_up_to_more_than_the_whole(whole, processes, tiles):
    shared = MemoryBudget(whole)
    files, network = shared.files(processes), shared.network(tiles)
    assert files.count * files.each + network.count * network.each <= whole
    assert 1 <= files.count <= processes
    assert 1 <= network.count <= tiles
    assert files.count == 1 or files.each >= LEAST_FILE
    assert network.count == 1 or network.each >= LEAST_TILE
    assert shared.files_alone().each <= whole


def test_a_group_of_900_mib_holds_the_processes_and_the_tiles_of_a_service(tmp_path, monkeypatch):
    group = tmp_path / "sys/fs/cgroup"
    for folder in (tmp_path / "proc/self", group):
        folder.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/self/mountinfo").write_text("31 25 0:30 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n")
    for name, value in {"max": 900 * MIB, "current": 400 * MIB, "stat": "inactive_file 0"}.items():
        (group / f"memory.{name}").write_text(f"{value}\n")
    monkeypatch.setattr(budget, "free_memory", lambda: free_memory(tmp_path))
    monkeypatch.setattr(memory, "free_memory", lambda: free_memory(tmp_path))
    shared = MemoryBudget.of_what_is_free()
    assert shared.whole <= 500 * MIB
    files, network = shared.files(2), shared.network(9)
    config = preset_config("small", ("a",), 1, ("*",))
    tile = affordable_tile(config, 20, torch.device("cpu"), network.each)
    used = files.count * (file_limits(files, 12_000_000).memory + budget.PROCESS)
    used += network.count * tile**2 * bytes_per_pixel(config) * KEPT
    assert 300 * MIB < used <= 500 * MIB
    assert file_limits(files, 12_000_000).memory > 10 * 12_000_000  # a JPEG of 12 megapixels takes 9 bytes a pixel
