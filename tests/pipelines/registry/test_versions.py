"""Aliases on a real MLflow with SQLite: two commands interleaved at each call, in two processes, and killed at any."""

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from crash_points import crash_points

from pipelines import promote as command
from pipelines.common.params import PREVIOUS, load_params
from pipelines.registry import lease
from pipelines.registry.lease import LEASE
from pipelines.registry.versions import MOVE, Registered
from pipelines.tracking.store import tracking

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "params.yaml")
NAME, CHAMPION = PARAMS.register.model, PARAMS.promote.alias


@pytest.fixture
def client(store):
    """A store with four versions, none of which has files."""
    with tracking("test") as client:
        client.create_registered_model(NAME)
        for _ in range(4):
            client.create_model_version(NAME, "file:///nowhere")
        yield client


def begin(client) -> None:
    """Champion is 2, which came after 1."""
    for alias, number in ((CHAMPION, "2"), (PREVIOUS, "1")):
        client.set_registered_model_alias(NAME, alias, number)


def state(client) -> tuple[int, int]:
    """The versions of champion and previous; nothing of a move is left."""
    model = client.get_registered_model(NAME)
    assert not [name for name in model.tags if name == MOVE or name.startswith(LEASE)], model.tags
    assert set(model.aliases) == {CHAMPION, PREVIOUS}
    return int(model.aliases[CHAMPION]), int(model.aliases[PREVIOUS])


class Paused:
    """A client that stops ahead of its call number `at`, until `go_on`."""

    def __init__(self, client, at: int) -> None:
        self.client, self.left = client, at
        self.stopped, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name):
        call = getattr(self.client, name)
        if not callable(call):
            return call

        def counted(*arguments):
            self.left -= 1
            if self.left == -1:
                self.stopped.set()
                assert self.go_on.wait(60)
            return call(*arguments)

        return counted


def promotion(number: int):
    """The end of a promotion that was measured beside version 2."""

    def move(client) -> str:
        there = Registered(client, NAME, CHAMPION)
        there.settle()
        there.move(2, number)

    return move


def rollback(client) -> None:
    """`python -m pipelines.promote --rollback`, through this client."""

    @contextlib.contextmanager
    def through(params):
        yield Registered(client, NAME, CHAMPION)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_registered", through)
        patch.setattr(command, "check_registered", lambda params, number: None)  # these versions have no files
        command.roll_back(PARAMS, dry_run=False)


def told(act, client) -> bool:
    """Whether it moved the aliases; else its error has to say so, and why."""
    try:
        act(client)
    except RuntimeError as error:
        if "nothing was moved here" not in str(error) and "nothing moved" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        # by who moved: first alone, second alone, second after first
        (promotion(3), promotion(4), {(True, False): {(3, 2)}, (False, True): {(4, 2)}}),
        (promotion(3), rollback, {(True, False): {(3, 2)}, (False, True): {(1, 2)}, (True, True): {(2, 3)}}),
        (rollback, promotion(3), {(True, False): {(1, 2)}, (False, True): {(3, 2)}, (True, True): {(2, 3)}}),
    ],
    ids=["two promotions", "a rollback amid a promotion", "a promotion amid a rollback"],
)
def test_a_second_command_at_each_call_of_the_first(client, monkeypatch, first, second, allowed):
    monkeypatch.setattr(lease, "WAIT", 0.0)
    seen = []
    for at in itertools.count():
        begin(client)
        paused, outcome = Paused(client, at), []
        thread = threading.Thread(target=lambda paused=paused, outcome=outcome: outcome.append(told(first, paused)))
        thread.start()
        while thread.is_alive() and not paused.stopped.wait(0.01):
            pass
        if not paused.stopped.is_set():
            break
        moved = told(second, client)
        paused.go_on.set()
        thread.join(60)
        seen.append((outcome[0], moved))
        assert state(client) in allowed[seen[-1]], (at, seen[-1])
    assert len(seen) > 10
    assert {(True, False), (False, True)} <= set(seen)


MOVES = """
import json, sys
from pathlib import Path
from pipelines.common.params import load_params
from pipelines.registry.versions import registered
params, kind = load_params(Path(sys.argv[1])), sys.argv[2]
name, alias, done = params.register.model, params.promote.alias, []
with registered(name, alias, "test") as there:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(8):
        aliases = there.aliases()
        old, new = aliases[alias], aliases["previous"] if kind == "rollback" else 3 + number % 2
        try:
            there.settle()
            if old != new:
                there.move(old, new)
                done.append((old, new))
        except RuntimeError as error:
            assert "nothing moved" in str(error) or "nothing was moved" in str(error), error
print(json.dumps(done))
"""


def test_two_processes_that_promote_and_roll_back_all_the_time(client, store):
    begin(client)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MOVES, str(ROOT / "params.yaml"), kind],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for kind in ("promotion", "rollback")
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    moves = [[tuple(move) for move in json.loads(process.communicate(timeout=200)[0])] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert all(moves), "one of the two never moved"
    champion, previous = state(client)
    assert champion != previous
    # Each began where another one had ended: left as often as come to, but for the first and the last.
    balance = dict.fromkeys(range(1, 5), 0)
    for old, new in itertools.chain(*moves):
        balance[old] -= 1
        balance[new] += 1
    assert {number: count + (number == 2) - (number == champion) for number, count in balance.items()} == dict.fromkeys(
        balance, 0
    )


def test_a_move_killed_at_any_write_to_the_database(client, store, monkeypatch):
    """Before each of SQLite's own writes; there is always a champion, and the next run ends the move."""
    begin(client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/self/cwd/mlflow.db")  # of each run's folder
    start = store / "start"
    start.mkdir()
    (store / "mlflow.db").rename(start / "mlflow.db")
    setup = f"""
import gc, os, time
import sqlalchemy
from types import SimpleNamespace
from pipelines.registry import lease
from pipelines.registry.versions import registered
def move(ahead):  # seconds after the first, whose lease has run out
    clock = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic, sleep=time.sleep)
    lease.time = clock
    with registered({NAME!r}, {CHAMPION!r}, "test") as there:
        there.settle()
        if there.aliases()[{CHAMPION!r}] == 2:
            there.move(2, 3)
os.chdir({str(start)!r})
with registered({NAME!r}, {CHAMPION!r}, "test") as there:
    there.aliases()  # once for all runs: MLflow's first look at a database takes a second
for each in gc.get_objects():
    if isinstance(each, sqlalchemy.Engine):
        each.dispose()
"""
    crashes = crash_points(start, "move(200 * ('-after-' in os.getcwd()))", setup)
    champions = []
    for crash in crashes:
        champions.append(kept(crash.found)[0][CHAMPION])
        aliases, tags = kept(crash.after)
        assert (aliases, MOVE in tags) == ({CHAMPION: 3, PREVIOUS: 2}, False), crash
    assert len(champions) > 90
    assert champions == sorted(champions)
    assert set(champions) == {2, 3}


def kept(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Aliases and tags of the model in a folder's database."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        aliases = dict(database.execute("SELECT alias, version FROM registered_model_aliases"))
        return aliases, [key for (key,) in database.execute("SELECT key FROM registered_model_tags")]
