"""What Ray keeps of a run whose driver was killed is taken back by the next."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    ResourceRequestPriority,
    get_or_create_autoscaling_coordinator,
)

from pipelines.cluster.storage import Storage
from pipelines.cluster.workers import run_config, take_back_request
from pipelines.common.params import load_params
from pipelines.data.shards import damaged
from pipelines.data.tiles import no_tiles

PROGRESS = SimpleNamespace(queue=None)


@pytest.fixture
def coordinator(local_ray):
    """Ray's own, to which two runs ask for both CPUs, one after the other."""
    actor = get_or_create_autoscaling_coordinator()

    def reserved(run: str) -> float:
        nodes = local_ray.get(actor.get_reserved_resources.remote(f"train-{run}"))
        return sum(node.get("CPU", 0) for node in nodes.values())

    for run in ("dead", "new"):
        local_ray.get(
            actor.request_resources.remote(f"train-{run}", [{"CPU": 1}] * 2, 180, priority=ResourceRequestPriority.HIGH)
        )
    yield reserved
    for run in ("dead", "new"):
        local_ray.get(actor.cancel_request.remote(f"train-{run}"))


@pytest.fixture(scope="module")
def settings():
    return load_params(Path(__file__).parents[3] / "params.yaml").ray


def report(settings, storage: Storage, run_id: str) -> None:
    """A worker's first report in the run `name`, as Ray's controller sees it."""
    (callback,) = run_config(settings, "name", storage, PROGRESS).callbacks
    callback.after_report(SimpleNamespace(run_id=run_id), [{"step": 0}], None)


def test_the_request_of_a_dead_run_is_taken_back(coordinator, settings, tmp_path):
    storage = Storage(str(tmp_path))
    report(settings, storage, "dead")
    assert (coordinator("dead"), coordinator("new")) == (2, 0)
    take_back_request("another", storage)
    assert (coordinator("dead"), coordinator("new")) == (2, 0)
    take_back_request("name", storage)
    assert coordinator("new") == 2


def test_a_storage_that_is_away_does_not_end_the_run(settings, tmp_path):
    (tmp_path / "storage").write_text("a file where the folder should be")
    report(settings, Storage(str(tmp_path / "storage")), "any")


def test_a_cluster_that_knows_nothing_of_the_run_is_none_the_worse(coordinator, settings, tmp_path):
    storage = Storage(str(tmp_path))
    report(settings, storage, "of another cluster")
    take_back_request("name", storage)
    assert (coordinator("dead"), coordinator("new")) == (2, 0)


SHARD = damaged("/mnt/files/a.parquet row group 3", "CRC checksum", data="data/shards/derain")


class TextError(Exception):
    """As Ray Data passes on what a reader raised: its traceback alone."""

    cause = Exception("UDF failed to process a data block.")

    def __str__(self) -> str:
        return f'ray::_ReadSegment()\n  File "groups.py"\npipelines.data.shards.ShardError: {SHARD}\n\nThe above'


def fail(settings, tmp_path, **worker_errors: Exception) -> list[str]:
    """What is told when workers fail, as Ray's controller sees it; raises what ends the run."""
    told = []
    progress = SimpleNamespace(queue=SimpleNamespace(put=lambda row: told.append(row["tell"])))
    (callback,) = run_config(settings, "name", Storage(str(tmp_path)), progress).callbacks
    callback.after_exception(None, dict(enumerate(worker_errors.values())))
    return told


@pytest.mark.parametrize("error", [SHARD, TextError(), no_tiles("/mnt/files/a.parquet", "CRC checksum", lost=True)])
def test_damaged_data_ends_the_run_for_no_restart_mends_it(settings, tmp_path, error):
    with pytest.raises(ValueError, match=r"^/mnt/files/a\.parquet.*\(CRC checksum\); .*`dvc repro -f -s \S+`$"):
        fail(settings, tmp_path, one=RuntimeError("Connection closed by peer"), other=error)


@pytest.mark.parametrize(
    "error", [OSError("When reading: no answer"), FileNotFoundError("a: damaged shard, where /mnt is not away")]
)
def test_workers_start_again_after_all_else(settings, tmp_path, error):
    told = fail(settings, tmp_path, one=RuntimeError("Connection closed by peer"), other=error)
    assert told == ["worker 0 failed: Connection closed by peer", f"worker 1 failed: {error}"]
