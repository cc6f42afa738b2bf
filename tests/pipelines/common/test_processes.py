"""Work spread over local processes."""

import os
import subprocess
import sys

import psutil
import pytest

from pipelines.common.processes import ordered_map, processes

LONG = """
import os, time
from pipelines.common.processes import ordered_map, processes

def wait(number):
    print(os.getpid(), flush=True)
    time.sleep(300)

if __name__ == "__main__":
    with processes(2, each=1) as pool:
        list(ordered_map(pool, wait, range(2)))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="no pool on one core")
def test_the_processes_of_a_pool_end_with_one_that_is_killed(tmp_path):
    (tmp_path / "long.py").write_text(LONG)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, tmp_path / "long.py"], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
        parent.kill()
    gone, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    assert (len(gone), alive) == (2, [])


def test_results_are_in_order_and_errors_come_through():
    with processes(2, each=1) as pool:
        assert list(ordered_map(pool, abs, range(-40, 0))) == list(range(40, 0, -1))
        with pytest.raises(TypeError):
            list(ordered_map(pool, abs, ["text"]))
    with processes(1, each=1) as pool:
        assert pool is None
        assert list(ordered_map(pool, abs, [-1, 2])) == [1, 2]
