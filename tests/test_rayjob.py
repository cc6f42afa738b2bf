"""The Kubernetes manifest: documented fields only, and an entrypoint that our own commands understand."""

import copy
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent

# Fields and types from KubeRay's API reference for ray.io/v1 (docs/reference/api.md, release 1.4; authOptions: 1.5.1).
JOB = {
    "activeDeadlineSeconds": int, "backoffLimit": int, "rayClusterSpec": dict, "submitterPodTemplate": dict,
    "metadata": dict, "clusterSelector": dict, "submitterConfig": dict, "managedBy": str, "deletionStrategy": dict,
    "entrypoint": str, "runtimeEnvYAML": str, "jobId": str, "submissionMode": str, "entrypointResources": str,
    "entrypointNumCpus": float, "entrypointNumGpus": float, "ttlSecondsAfterFinished": int,
    "shutdownAfterJobFinishes": bool, "suspend": bool,
}  # fmt: skip
CLUSTER = {
    "suspend": bool, "managedBy": str, "autoscalerOptions": dict, "headServiceAnnotations": dict,
    "enableInTreeAutoscaling": bool, "gcsFaultToleranceOptions": dict, "headGroupSpec": dict, "rayVersion": str,
    "workerGroupSpecs": list, "authOptions": dict,
}  # fmt: skip
HEAD = {"template": dict, "headService": dict, "enableIngress": bool, "rayStartParams": dict, "serviceType": str}
WORKERS = {
    "suspend": bool, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int,
    "idleTimeoutSeconds": int, "rayStartParams": dict, "template": dict, "scaleStrategy": dict, "numOfHosts": int,
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest():
    return YAML(typ="safe").load((ROOT / "docs/cluster/rayjob.yaml").read_text())


def faults(manifest) -> list[str]:
    """What is wrong with a manifest, as `level.field`."""
    job = manifest["spec"]
    cluster = job["rayClusterSpec"]
    groups = [("head", cluster["headGroupSpec"], HEAD)]
    groups += [("workers", group, WORKERS) for group in cluster["workerGroupSpecs"]]
    found = []
    for level, values, known in [("job", job, JOB), ("cluster", cluster, CLUSTER), *groups]:
        found += [f"{level}.{name}" for name, value in values.items() if not isinstance(value, known.get(name, ()))]
    for level, group, _ in groups:
        found += [f"{level}.rayStartParams.{n}" for n, v in group["rayStartParams"].items() if not isinstance(v, str)]
        found += [f"{level}.{fault}" for fault in faults_of_pod(group["template"]["spec"])]
    return found


def faults_of_pod(pod) -> list[str]:
    volumes, found = {volume["name"] for volume in pod["volumes"]}, []
    for container in pod["containers"]:
        found += [f"volumeMounts.{m['name']}" for m in container["volumeMounts"] if m["name"] not in volumes]
        asked, most = container["resources"]["requests"], container["resources"]["limits"]
        found += [f"resources.{name}" for name in asked if size(asked[name]) > size(most.get(name, "0"))]
    return found


def size(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi|)", quantity).groups()
    return int(number) * {"": 1, "Mi": 2**20, "Gi": 2**30}[unit]


def commands(manifest) -> list[list[str]]:
    """The commands of the entrypoint's shell script, split into words."""
    shell, flags, script = shlex.split(manifest["spec"]["entrypoint"])
    assert (shell, flags) == ("bash", "-euc")
    return [shlex.split(command) for command in script.split("&&")]


def test_the_manifest_is_without_fault(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert faults(manifest) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda job: job.update(entryPoint="x"), "job.entryPoint"),
        (lambda job: job.update(backoffLimit="3"), "job.backoffLimit"),
        (lambda job: job["rayClusterSpec"].update(headgroup={}), "cluster.headgroup"),
        (lambda job: job["rayClusterSpec"]["headGroupSpec"].update(replicas=1), "head.replicas"),
        (
            lambda job: job["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
            "head.rayStartParams.num-cpus",
        ),
        (lambda job: job["rayClusterSpec"]["workerGroupSpecs"][0].update(maxreplicas=1), "workers.maxreplicas"),
        (
            lambda job: job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"].pop(0),
            "head.volumeMounts.storage",
        ),
        (
            lambda job: job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"][
                "requests"
            ].update(memory="99Gi"),
            "head.resources.memory",
        ),
    ],
)
def test_a_fault_is_found(manifest, change, fault):
    changed = copy.deepcopy(manifest)
    change(changed["spec"])
    assert fault in faults(changed)


def test_ray_is_the_one_of_the_constraints_and_all_nodes_have_one_image(manifest):
    cluster = manifest["spec"]["rayClusterSpec"]
    assert f"\nray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    assert len({container["image"] for container in containers}) == 1
    assert all(container["env"] == containers[0]["env"] for container in containers)


@pytest.mark.parametrize(("name", "cluster"), [("rayjob", "rayClusterSpec"), ("rayservice", "rayClusterConfig")])
def test_who_has_no_token_runs_nothing(name, cluster):
    spec = YAML(typ="safe").load((ROOT / f"docs/cluster/{name}.yaml").read_text())["spec"][cluster]
    assert spec["authOptions"] == {"mode": "token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        environment = {variable["name"] for variable in group["template"]["spec"]["containers"][0]["env"]}
        assert not {variable for variable in environment if variable.startswith("RAY_AUTH")}  # it is KubeRay's to set


def test_the_entrypoint_is_made_of_commands_that_are_there(manifest):
    from dvc.cli import parse_args

    by_program: dict[str, list[list[str]]] = {}
    for program, *arguments in commands(manifest):
        by_program.setdefault(program, []).append(arguments)
    assert set(by_program) == {"rm", "git", "cd", "dvc", "python"}
    assert [arguments[0] for arguments in by_program["dvc"]] == ["pull", "push"]
    for arguments in by_program["dvc"]:
        assert parse_args(arguments).func  # dvc's own parser raises where it does not know an option
    assert [arguments[0] for arguments in by_program["python"]] == ["-m"]
    assert importlib.util.find_spec(by_program["python"][0][1])


def test_every_variable_of_the_entrypoint_is_set(manifest):
    head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    used = set(re.findall(r"\$(\w+)", manifest["spec"]["entrypoint"]))
    assert used == {"REPOSITORY", "REVISION"}
    assert used <= {variable["name"] for variable in head["env"]}


def test_the_image_installs_what_the_project_has():
    text = (ROOT / "docs/cluster/Dockerfile").read_text()
    extra = re.search(r"source\[(\w+)\]", text).group(1)
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()
    assert {"wget", "git", "make"} <= set(text.split())
