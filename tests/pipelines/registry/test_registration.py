"""A registered model fetched for `ipt --model models:/...`, from a real MLflow on SQLite."""

import shutil
from pathlib import Path

import mlflow
import pytest
import torch

from ipt import InstructIPT
from ipt.network.checkpoint import save_model
from pipelines.registry import registration as registry
from pipelines.registry.fetch import fetch_checkpoint
from pipelines.tracking.store import experiment_id, tracking

pytestmark = pytest.mark.slow


def test_a_registered_model_comes_back_by_alias_and_by_version(make_config, fill_parameters, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    models = [fill_parameters(InstructIPT(make_config()), seed).eval() for seed in (0, 1)]
    with tracking("test") as client:
        experiment = experiment_id(client, "some")
        for number, model in enumerate(models):
            save_model(model, tmp_path / "model")
            with mlflow.start_run(experiment_id=experiment):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(registry.__file__).with_name("pyfunc.py")),
                    artifacts={"checkpoint": str(tmp_path / "model")},
                    signature=registry.signature(),
                    pip_requirements=["torch"],
                )
            version = mlflow.register_model(logged.model_uri, "ipt")
            client.set_registered_model_alias("ipt", ("old", "best")[number], version.version)
    shutil.rmtree(tmp_path / "model")
    for uri, model in (("@best", models[1]), ("@old", models[0]), ("/2", models[1]), ("/1", models[0])):
        fetched = InstructIPT.from_pretrained(f"models:/ipt{uri}").state_dict()
        assert all(torch.equal(fetched[name], value) for name, value in model.state_dict().items())
    for uri in ("models:/ipt@worst", "models:/ipt/3", "models:/nobody@best"):
        with pytest.raises(RuntimeError, match=rf"MLflow at sqlite:///{tmp_path}/mlflow\.db: "):
            fetch_checkpoint(uri, tmp_path)
