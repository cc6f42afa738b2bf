"""Promotion with real MLflow on SQLite: what is worse stays out, what is not becomes champion, and the way back.

Damage here is ten grey levels of darkness, for every task, so a model with the right bias at its end restores exactly.
"""

import dataclasses
import io
import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow.artifacts import download_artifacts
from PIL import Image

from ipt import InstructIPT, restore_image
from ipt.network.checkpoint import CHECKSUMS, save_model
from ipt.network.modulation import modulated_layers
from ipt.photos.photo import read_photo
from ipt.pixels import to_levels
from ipt.weights import CheckpointError
from pipelines import promote as command
from pipelines.common.params import PREVIOUS, Floors, load_params
from pipelines.common.stage import run
from pipelines.data.rows import SHARD_COLUMNS, row_schema, write_rows
from pipelines.promote import copy, main, promote, roll_back
from pipelines.promotion.gate import LACKS
from pipelines.promotion.measure import measure
from pipelines.registry import lease
from pipelines.registry.card import MEASURED
from pipelines.registry.fetch import checkpoint_in, fetch_checkpoint
from pipelines.registry.integrity import FILES, file_hashes
from pipelines.registry.lease import LASTS, leased
from pipelines.registry.versions import MOVE, WEIGHTS, Registered, registered
from pipelines.tracking.store import tracking

REAL = load_params(Path(__file__).parents[2] / "params.yaml")
NAME, CHAMPION, CANDIDATE = REAL.register.model, REAL.promote.alias, REAL.register.alias
DARKER = 10 / 255
TASKS = ("denoise", "derain")


@pytest.fixture(scope="module")
def params():
    """The real params for the two tasks, with limits that untrained understanding and a busy machine keep to."""
    floors = Floors(gain=0.0, mean_gain=1.0, instructions=0.0, seen=0.0, clean=0.0)
    limits = dataclasses.replace(REAL.promote, growth=1e6, seconds_per_megapixel=1e6, floors=floors)
    return dataclasses.replace(
        REAL,
        tasks={task: REAL.tasks[task] for task in TASKS},
        evaluate=dataclasses.replace(REAL.evaluate, tiles=3, real_pairs=()),
        promote=limits,
    )


@pytest.fixture(scope="module")
def darkened(tmp_path_factory):
    """Held-out shards of dark pictures."""
    folder = tmp_path_factory.mktemp("darkened")
    rng = np.random.default_rng(0)
    for task in (*TASKS, "polish"):
        rows = []
        for number in range(3):
            clean = rng.integers(60, 200, (16, 16, 3)).astype(np.float32) / 255
            rows.append(
                {
                    "task": task, "image_id": str(number), "variant": 0, "degraded": to_levels(clean - DARKER),
                    "clean": to_levels(clean), "height": 16, "width": 16, "instruction": "", "severity": "{}",
                    "seed": 0,
                }
            )  # fmt: skip
        (folder / task / "val").mkdir(parents=True)
        write_rows(folder / task / "val" / "00000.parquet", rows, row_schema(SHARD_COLUMNS, 16, 16), row_group_rows=3)
    return folder


@pytest.fixture
def registry(store, darkened, make_config):
    """A function that registers a model brighter by `levels`, `worse` in one task, as the candidate."""
    (store / "data").mkdir()
    shutil.copytree(darkened, store / "data" / "shards")

    def add(levels: float, worse: str | None = None, tasks: tuple[str, ...] = TASKS) -> int:
        return register(store, brighten(make_config(tasks=tasks, layers=("head",)), levels, worse))

    return add


def brighten(config, levels: float, worse: str | None = None) -> InstructIPT:
    model = InstructIPT(config).eval()
    with torch.no_grad():
        model.backbone.head.bias.fill_(levels / 255)
        model.estimator.score.bias[-1] = 9  # what it sees is clean: left to itself it does nothing
        if worse:
            generator = torch.Generator().manual_seed(0)
            for layer in modulated_layers(model.backbone).values():
                up = layer.task_up[model.task_index(worse)]
                up.copy_(torch.randn(up.shape, generator=generator) * 0.3)
    return model


def register(folder: Path, model: InstructIPT, hashed: bool = True) -> int:
    """A model as a version in the store; its folder has what promotion reads of one that MLflow wrote."""
    with tracking("test") as client:
        experiment = client.get_experiment_by_name("some")
        experiment = experiment.experiment_id if experiment else client.create_experiment(
            "some", artifact_location=(folder / "artifacts").as_uri()
        )  # fmt: skip
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, f"# card\n{MEASURED}old numbers\n", "MODEL_CARD.md")
        client.log_param(run.info.run_id, "steps", 7)
        client.set_terminated(run.info.run_id)
        files = folder / f"model-{run.info.run_id}"
        save_model(model, files / "artifacts" / "checkpoint")
        (files / "MLmodel").write_text(
            "flavors: {python_function: {artifacts: {checkpoint: {path: artifacts/checkpoint}}}}\n"
        )
        if not client.search_registered_models():
            client.create_registered_model(NAME)
        tags = {FILES: file_hashes(files / "artifacts" / "checkpoint")} if hashed else {}
        version = client.create_model_version(NAME, files.as_uri(), run.info.run_id, tags, description="old")
        client.set_registered_model_alias(NAME, CANDIDATE, version.version)
        return int(version.version)


def aliases() -> dict[str, int]:
    with registered(NAME, CHAMPION, "test") as there:
        return {alias: number for alias, number in there.aliases().items() if alias != CANDIDATE}


def version(number: int):
    with tracking("test") as client:
        return client.get_model_version(NAME, str(number))


def artifact(number: int, path: str) -> str:
    with tracking("test") as client:
        return Path(client.download_artifacts(version(number).run_id, path)).read_text()


def files_of(number: int) -> Path:
    """The checkpoint of a version in the store itself, to spoil it there."""
    return checkpoint_in(Path(download_artifacts(f"models:/{NAME}/{number}")))


def test_the_first_by_the_floors_then_never_a_worse_one_and_the_way_back(params, registry, capsys):
    assert registry(0.0) == 1  # does nothing: no gain
    assert not promote(params, None, dry_run=False)
    assert "promote: version 1 is refused: psnr/mean" in capsys.readouterr().err
    assert aliases() == {}

    registry(5.0)
    assert promote(params, None, dry_run=False)
    assert aliases() == {CHAMPION: 2}

    registry(10.0, worse="derain")
    assert not promote(params, None, dry_run=False)
    told = capsys.readouterr()
    assert "promote: version 3 is refused: psnr/derain\n" in told.err
    assert aliases() == {CHAMPION: 2}

    registry(10.0)
    assert promote(params, None, dry_run=False)
    assert aliases() == {CHAMPION: 4, PREVIOUS: 2}
    assert "version 4 is champion, version 2 is previous (back: " in capsys.readouterr().out

    roll_back(params, dry_run=False)
    assert aliases() == {CHAMPION: 2, PREVIOUS: 4}
    roll_back(params, dry_run=False)
    assert aliases() == {CHAMPION: 4, PREVIOUS: 2}

    assert not promote(params, 2, dry_run=False)  # the worse one by its number
    assert aliases() == {CHAMPION: 4, PREVIOUS: 2}


def test_what_was_measured_is_kept_with_the_version(params, registry, capsys):
    registry(5.0)
    registry(10.0, worse="derain")
    assert promote(params, 1, dry_run=False)
    assert not promote(params, 2, dry_run=False)
    shown = capsys.readouterr().out
    table, report = (
        artifact(2, "promotion/version_2/table.md"),
        json.loads(artifact(2, "promotion/version_2/table.json")),
    )
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert all(line in shown for line in lines)
    assert any(line.startswith("| psnr/derain ") and "FAIL" in line for line in lines)
    assert (report["candidate"], report["champion"]) == (2, 1)
    assert report["failed"] == ["psnr/derain"]
    assert [row["name"] for row in report["rows"] if not row["passed"]] == report["failed"]
    tags = version(2).tags
    assert tags["promotion"] == "refused: psnr/derain"
    assert tags["promotion.beside"] == "version 1"
    assert tags["promotion.psnr/derain"].startswith("FAIL: ")
    assert tags["promotion.psnr/denoise"].startswith("pass: ")
    assert version(1).tags["promotion"] == "passed"
    assert version(1).tags["promotion.beside"] == "floors"
    card = artifact(2, "MODEL_CARD.md")
    assert version(2).description == card
    assert card.startswith("# card\n")
    assert "| derain | 3 |" in card
    assert "old numbers" not in card


def test_a_dry_run_says_the_same_and_keeps_nothing(params, registry, capsys):
    registry(10.0)
    before = version(1)
    assert promote(params, None, dry_run=True)
    assert "version 1 would be champion (dry run)" in capsys.readouterr().out
    assert (version(1).tags, version(1).description, aliases()) == (before.tags, "old", {})
    promote(params, None, dry_run=False)
    registry(0.0)
    assert not promote(params, None, dry_run=True)
    assert "version 2 is refused: psnr/denoise, psnr/derain, psnr/mean (dry run)" in capsys.readouterr().out
    assert version(2).tags.keys() == {FILES}
    promote(params, registry(10.0), dry_run=False)
    capsys.readouterr()
    roll_back(params, dry_run=True)
    assert capsys.readouterr().out == "promote: version 1 would be champion, version 3 previous (dry run)\n"
    assert aliases() == {CHAMPION: 3, PREVIOUS: 1}


def test_the_champion_itself_is_not_measured(params, registry, capsys, monkeypatch):
    registry(10.0)
    promote(params, None, dry_run=False)
    capsys.readouterr()
    monkeypatch.setattr(command, "measure_versions", None)
    assert promote(params, None, dry_run=False)
    assert capsys.readouterr().out == "promote: version 1 is the champion already; nothing to do\n"
    assert aliases() == {CHAMPION: 1}


@pytest.mark.slow
def test_a_new_task_is_held_to_the_floors_and_a_lost_one_is_refused(params, registry, capsys):
    registry(10.0)
    promote(params, None, dry_run=False)
    registry(10.0, tasks=(*TASKS, "polish"))
    assert promote(params, None, dry_run=False)
    rows = {row["name"]: row for row in json.loads(artifact(2, "promotion/version_2/table.json"))["rows"]}
    assert rows["psnr/polish"]["champion"] is None
    assert rows["psnr/derain"]["champion"] is not None
    registry(10.0)
    assert not promote(params, None, dry_run=False)
    assert "version 3 is refused: psnr/polish" in capsys.readouterr().err
    assert LACKS in artifact(3, "promotion/version_3/table.md")
    registry(10.0, tasks=("polish",))
    promote(params, None, dry_run=False)
    registry(10.0, tasks=("denoise",))  # nothing in common
    with registered(NAME, CHAMPION, "test") as there:
        there.move(2, 4)
    assert not promote(params, None, dry_run=False)
    assert "version 5 is refused: psnr/polish" in capsys.readouterr().err


def test_a_champion_that_cannot_be_loaded_stops_it(params, registry):
    registry(5.0)
    promote(params, None, dry_run=False)
    registry(10.0)
    weights = files_of(1) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"^the champion, version 1, cannot be loaded, .*--rollback"):
        promote(params, None, dry_run=False)
    assert aliases() == {CHAMPION: 1}
    shutil.rmtree(weights.parent)
    with pytest.raises(ValueError, match=r"^the champion, version 1, cannot be loaded"):
        promote(params, None, dry_run=False)


def test_a_version_whose_files_changed_is_refused_everywhere(params, registry, store, flip_bit):
    for number in (1, 2):
        registry(10.0)
        with registered(NAME, CHAMPION, "test") as there:
            there.move(number - 1 or None, number)
    copied = fetch_checkpoint(f"models:/{NAME}/1", store / "copied")
    flip_bit(files_of(1) / "model.safetensors")
    InstructIPT.from_pretrained(copied)  # what was checked and is loaded is a copy that nobody else has
    (files_of(1) / CHECKSUMS).unlink()  # which would have told it, but is beside what it tells of
    told = (
        rf"models:/{NAME}/1: SHA256SUMS: missing, registered with SHA-256 [0-9a-f]{{12}}\.\.\.; "
        r"model\.safetensors: its SHA-256 is [0-9a-f]{12}\.\.\., registered was [0-9a-f]{12}\.\.\.: damaged"
    )
    for use in (
        lambda: promote(params, 1, dry_run=True),
        lambda: roll_back(params, dry_run=True),
        lambda: roll_back(params, dry_run=False),
        lambda: copy(params, 1, f"sqlite:///{store / 'mlflow.db'}"),
        lambda: InstructIPT.from_pretrained(f"models:/{NAME}@{PREVIOUS}"),
    ):
        with pytest.raises(CheckpointError, match=told):
            use()
    assert aliases() == {CHAMPION: 2, PREVIOUS: 1}
    (files_of(2) / "extra.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^the champion, version 2, cannot be loaded, .*extra\.bin: .* no file of"):
        promote(params, registry(10.0), dry_run=False)


def test_a_version_that_changes_while_it_is_measured_is_not_promoted(params, registry, flip_bit, monkeypatch):
    registry(10.0)

    def measure_and_change(*arguments):
        flip_bit(files_of(1) / "model.safetensors")
        return measure(*arguments)

    monkeypatch.setattr(command, "measure", measure_and_change)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* damaged or changed"):
        promote(params, None, dry_run=False)
    assert aliases() == {}


def test_a_version_without_hashes_is_promoted_with_a_sentence(params, registry, store, make_config, capsys):
    register(store, brighten(make_config(tasks=TASKS, layers=("head",)), 10.0), hashed=False)
    assert promote(params, None, dry_run=False)
    assert f"models:/{NAME}/1: registered without hashes of its files, " in capsys.readouterr().err
    assert aliases() == {CHAMPION: 1}


def test_what_is_not_there_is_named(params, store, registry):
    for call in (lambda: promote(params, None, dry_run=False), lambda: roll_back(params, dry_run=False)):
        with pytest.raises(ValueError, match=rf"^{NAME}: no such registered model in sqlite:"):
            call()
    registry(10.0)
    with pytest.raises(ValueError, match=r"expected one of the versions 1; got 2$"):
        promote(params, 2, dry_run=False)
    with pytest.raises(ValueError, match=r"no version has the alias previous, so there is no way back"):
        roll_back(params, dry_run=False)
    with tracking("test") as client:
        client.delete_registered_model_alias(NAME, CANDIDATE)
    with pytest.raises(ValueError, match=r"no version has the alias candidate; name one with --version N"):
        promote(params, None, dry_run=False)


def test_a_champion_that_changed_meanwhile_stays(params, registry, monkeypatch):
    registry(5.0)
    registry(10.0)

    def measure_slowly(*arguments):
        with registered(NAME, CHAMPION, "test") as there:
            there.move(None, 1)
        return measure(*arguments)

    monkeypatch.setattr(command, "measure", measure_slowly)
    with pytest.raises(RuntimeError, match=r"version 1 became champion meanwhile \(it was none\); nothing moved"):
        promote(params, 2, dry_run=False)
    assert aliases() == {CHAMPION: 1}


class Killed(BaseException):
    """Stands for SIGKILL."""


class KilledClient:
    """A client that is killed instead of its `after`-th write."""

    def __init__(self, client, after: int) -> None:
        self.client, self.left = client, after

    def __getattr__(self, name):
        if name.startswith(("set_", "delete_")):
            if not self.left:
                raise Killed
            self.left -= 1
        return getattr(self.client, name)


@pytest.mark.parametrize("back", [False, True])
def test_a_move_that_is_killed_leaves_a_champion_and_is_finished_or_forgotten(params, registry, back, monkeypatch):
    for _ in range(3):
        registry(10.0)
    outcomes = []
    for after in range(7):
        with registered(NAME, CHAMPION, "test") as there:
            for alias, number in ((CHAMPION, "2"), (PREVIOUS, "1")):
                there.client.set_registered_model_alias(NAME, alias, number)
            new = 1 if back else 3
            killed = Registered(KilledClient(there.client, after), NAME, CHAMPION)
            try:
                killed.move(2, new)
            except Killed:
                outcomes.append(aliases()[CHAMPION])
                assert aliases()[CHAMPION] in (2, new)
            clock = SimpleNamespace(time=lambda ahead=after + 1: time.time() + ahead * LASTS, monotonic=time.monotonic)
            monkeypatch.setattr(lease, "time", clock)  # the lease of the killed one ran out
            there.settle()
            with leased(there.client, NAME):
                pass
            done = {CHAMPION: new, PREVIOUS: 2}
            assert aliases() == (done if there.aliases()[CHAMPION] == new else {CHAMPION: 2, PREVIOUS: 1})
            assert MOVE not in there.client.get_registered_model(NAME).tags
            assert after < 6 or aliases() == done
    assert outcomes == [2, 2, 2, new, new, new]
    assert there.client.get_registered_model(NAME).tags == {}


class HeldClient:
    """A client that calls `before` ahead of each write, with its name and second argument."""

    def __init__(self, client, before: Callable[[str, str], None]) -> None:
        self.client, self.before = client, before

    def __getattr__(self, name):
        known = getattr(self.client, name)
        if not name.startswith(("set_", "delete_")):
            return known

        def write(model, *arguments):
            self.before(name, arguments[0])
            return known(model, *arguments)

        return write


@pytest.mark.slow
def test_of_two_promotions_at_once_one_moves_and_the_other_is_told(params, registry, monkeypatch):
    for _ in range(3):
        registry(10.0)
    with registered(NAME, CHAMPION, "test") as there:
        there.move(None, 1)
    both, move = threading.Barrier(2), Registered.move

    def move_together(*arguments):
        both.wait(30)  # both have measured themselves beside version 1, and are sure of it
        move(*arguments)

    monkeypatch.setattr(Registered, "move", move_together)
    with ThreadPoolExecutor(2) as pool:
        outcomes = {number: pool.submit(promote, params, number, dry_run=False) for number in (2, 3)}
    lost = {number: str(outcome.exception()) for number, outcome in outcomes.items() if outcome.exception()}
    [(loser, told)], champion = lost.items(), aliases()[CHAMPION]
    assert {champion, loser} == {2, 3}
    assert aliases() == {CHAMPION: champion, PREVIOUS: 1}
    assert told == f"version {champion} became champion meanwhile (it was version 1); nothing moved, run it again"
    with tracking("test") as client:
        assert client.get_registered_model(NAME).tags == {}


def test_a_command_that_starts_amid_a_move_takes_no_previous_away(params, registry, monkeypatch):
    for _ in range(2):
        registry(10.0)
    with registered(NAME, CHAMPION, "test") as there:
        there.move(None, 1)
    amid, go_on = threading.Event(), threading.Event()

    def hold(name: str, what: str) -> None:
        if (name, what) == ("set_registered_model_alias", CHAMPION):
            amid.set()
            assert go_on.wait(30)

    def move() -> None:
        with registered(NAME, CHAMPION, "test") as there:
            Registered(HeldClient(there.client, hold), NAME, CHAMPION).move(1, 2)

    monkeypatch.setattr(lease, "WAIT", 0.5)
    with ThreadPoolExecutor(1) as pool:
        moved = pool.submit(move)
        assert amid.wait(30)
        for begin in (lambda: promote(params, None, dry_run=False), lambda: roll_back(params, dry_run=False)):
            with pytest.raises(RuntimeError, match=r"has been moving its aliases since 2.*run the same again"):
                begin()
        go_on.set()
        moved.result()
    assert aliases() == {CHAMPION: 2, PREVIOUS: 1}


def test_a_version_goes_to_another_registry_whole_and_once(params, registry, store, monkeypatch, capsys):
    registry(5.0)
    registry(10.0)
    promote(params, None, dry_run=False)
    other = f"sqlite:///{store / 'other' / 'mlflow.db'}"
    (store / "other").mkdir()
    shutil.copy(store / "mlflow.db", store / "other" / "mlflow.db")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", other)
        with tracking("test") as client:
            client.delete_registered_model(NAME)
    copy(params, None, other)
    assert f"version 2 is version 1 of {NAME} in {other}, alias {CANDIDATE}" in capsys.readouterr().out
    copy(params, None, other)
    assert "version 2 was there already as version 1" in capsys.readouterr().out
    copy(params, 1, other)
    here, text = version(2), artifact(2, "promotion/version_2/table.md")
    weights = InstructIPT.from_pretrained(f"models:/{NAME}/2").state_dict()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    with tracking("test") as client:
        assert int(client.get_model_version_by_alias(NAME, CANDIDATE).version) == 2
        assert client.get_run(version(1).run_id).data.params == {"steps": "7"}
    there = version(1)
    assert there.description == here.description
    assert there.tags == here.tags | {WEIGHTS: there.tags[WEIGHTS], "copied_from": f"{NAME} version 2"}
    assert artifact(1, "promotion/version_2/table.md") == text
    copied = InstructIPT.from_pretrained(f"models:/{NAME}/1").state_dict()
    assert all(torch.equal(copied[name], value) for name, value in weights.items())
    assert promote(params, 1, dry_run=False)  # the gate of the other registry
    assert aliases() == {CHAMPION: 1}


def test_another_registry_that_is_away_is_named(params, registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry(10.0)
    with pytest.raises(RuntimeError, match=r"^copying version 1 to http://127\.0\.0\.1:9: "):
        copy(params, 1, "http://127.0.0.1:9")


def test_the_exit_status_and_message_of_a_refusal(params, registry, monkeypatch, capsys):
    registry(0.0)
    monkeypatch.setattr(command, "load_params", lambda: params)
    monkeypatch.setattr("sys.argv", ["promote"])
    with pytest.raises(SystemExit) as refused:
        run(main)
    assert refused.value.code == 1
    assert capsys.readouterr().err == "promote: version 1 is refused: psnr/mean\n"
    for wrong in (
        ["--rollback", "--version", "1"],
        ["--to-registry", "x", "--dry-run"],
        ["--rollback", "--to-registry", "x"],
    ):
        monkeypatch.setattr("sys.argv", ["promote", *wrong])
        with pytest.raises(SystemExit) as misused:
            run(main)
        assert misused.value.code == 2
    monkeypatch.setattr("sys.argv", ["promote", "--version", "7"])
    with pytest.raises(SystemExit) as failed:
        run(main)
    assert failed.value.code == 1
    assert "error: instruct-ipt: expected one of the versions 1; got 7" in capsys.readouterr().err


@pytest.mark.slow
def test_a_service_follows_what_is_promoted_and_rolled_back_and_fails_nobody(params, registry, store, serving, capsys):
    levels = np.random.default_rng(5).integers(50, 200, (40, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    answers, stop = [], threading.Event()

    def pixels_of(number: int) -> np.ndarray:
        return restore_image(InstructIPT.from_pretrained(f"models:/{NAME}/{number}"), levels, task="derain")

    def wait_for(number: int) -> None:
        """Until an answer came from that version."""
        until, seen = time.monotonic() + 60, len(answers)
        while not any(headers["x-model"].endswith(f"/{number}") for _, headers, _ in answers[seen:]):
            assert time.monotonic() < until, f"version {number} never came"
            time.sleep(0.1)

    first = registry(6.0)
    assert promote(params, None, dry_run=False)
    with serving(store, model=f"models:/{NAME}@{CHAMPION}", watch=0.5) as service:

        def client() -> None:
            while not stop.is_set():
                answers.append(service.restore(buffer.getvalue(), task="derain"))

        thread = threading.Thread(target=client)
        thread.start()
        try:
            wait_for(first)
            registry(8.0, worse="derain")
            capsys.readouterr()
            assert not promote(params, None, dry_run=False)
            assert "psnr/derain" in capsys.readouterr().err
            better = registry(9.0)
            assert promote(params, None, dry_run=False)
            wait_for(better)
            roll_back(params, dry_run=False)
            wait_for(first)
        finally:
            stop.set()
            thread.join()
    assert {status for status, _, _ in answers} == {200}
    assert {headers["x-model"].split("/")[-1] for _, headers, _ in answers} == {str(first), str(better)}
    wanted = {f"models:/{NAME}/{number}": pixels_of(number) for number in (first, better)}
    assert np.abs(wanted[f"models:/{NAME}/{first}"].astype(int) - wanted[f"models:/{NAME}/{better}"]).max() >= 2
    for _, headers, content in answers:
        restored = read_photo(content).levels.astype(int)
        assert np.abs(restored - wanted[headers["x-model"]]).max() <= 1
