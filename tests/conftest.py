"""What tests of several packages share; libraries are imported where a fixture needs them."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small and share their cores


@pytest.fixture
def start(tmp_path):
    """An empty folder for `crash_points`, whose copies lie beside it."""
    folder = tmp_path / "start"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def make_config():
    """A very small ModelConfig, with changes by name."""
    from ipt.network.config import ModelConfig

    def make(**changes) -> ModelConfig:
        values = {
            "tasks": ("denoise", "derain", "deblur"),
            "width": 8,
            "patch": 2,
            "blocks": (1, 1),
            "attention_levels": 1,
            "head_width": 4,
            "expansion": 1.5,
            "rank": 2,
            "layers": ("*.query_key_value", "*.project", "*.expand"),
        }
        return ModelConfig(**(values | changes))

    return make


@pytest.fixture(scope="session")
def fill_parameters():
    """Put seeded noise into every parameter of a module, so that no part is idle; returns it."""
    import torch

    def fill(module, seed: int, scale: float = 0.3):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        return module

    return fill


@pytest.fixture(scope="session")
def see_nothing():
    """Take from a model what it knows of the looks of damage, as before training; returns it.

    Left to itself it then leaves every picture as it is, whatever the noise in its other parameters.
    """
    import torch

    def forget(model):
        for parameter in model.estimator.score.parameters():
            torch.nn.init.zeros_(parameter)
        return model

    return forget


@pytest.fixture(scope="session")
def without_bf16():
    """As on a CPU without bfloat16: these tests' networks are noise, which half precision turns into other noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipt.network.precision.has_bf16", lambda device: False)
        yield


@pytest.fixture(scope="session")
def local_ray():
    """One Ray on this machine, with two CPUs, for all tests that name it."""
    import ray

    import pipelines  # noqa: F401  sets Ray's environment
    from pipelines.cluster.connection import own_token, quiet_data

    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")  # as pipelines.serve does: 5 is too few here
    own_token()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    quiet_data()
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def s3():
    """An object store; the environment says how to reach it."""
    from benchmarks.local_store import LocalStore

    store = LocalStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment("127.0.0.1", store.port).items():
            patch.setenv(name, value)
        store.make_bucket()
        yield store
    store.leave()


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder with small shards of three tasks, as `synthesize` writes them.

    Every pair of images is unlike all others: the red of the degraded one counts all pairs of all
    tasks, the green of the clean one too.
    """
    import numpy as np

    from ipt.pixels import to_levels
    from pipelines.data.rows import SHARD_COLUMNS, row_schema, write_rows

    folder = tmp_path_factory.mktemp("shards")
    tasks = {"denoise": (7, 5), "derain": (9,), "deblur": (4, 3, 6)}
    rng = np.random.default_rng(0)
    count = 0
    for task, files in tasks.items():
        for split in ("train", "val"):
            (folder / task / split).mkdir(parents=True)
            for number, rows in enumerate(files):
                content = []
                for place in range(rows):
                    degraded, clean = rng.random((2, 16, 16, 3), np.float32)
                    degraded[..., 0] = clean[..., 1] = count / 255
                    content.append(
                        {
                            "task": task, "image_id": f"{split}/{number}/{place}", "variant": 0,
                            "degraded": to_levels(degraded), "clean": to_levels(clean),
                            "height": 16, "width": 16, "instruction": f"do {task}",
                            "severity": "{}", "seed": count,
                        }
                    )  # fmt: skip
                    count += 1
                path = folder / task / split / f"{number:05d}.parquet"
                write_rows(path, content, row_schema(SHARD_COLUMNS, 16, 16), row_group_rows=3)
    return folder


@pytest.fixture(scope="session")
def task_table():
    """The three tasks of `shards`, with different shares."""
    from pipelines.common.params import Task

    shares = {"denoise": 2, "derain": 1, "deblur": 3}
    return {name: Task(share, 1.0, [], (f"do {name}", f"{name} it")) for name, share in shares.items()}
