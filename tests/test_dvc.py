"""dvc.yaml, and that of the optional stages: all code that a stage uses is among its deps, all params exist and are
somebody's."""

import ast
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGES = ("degradations", "ipt", "pipelines")


def read_yaml(name: str) -> dict:
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text())


DEFAULT, OPTIONAL = read_yaml("dvc.yaml")["stages"], read_yaml("pipelines/optional/dvc.yaml")["stages"]
STAGES = DEFAULT | OPTIONAL
REGISTERED = {
    "register": "pipelines.registry.pyfunc",
    "diffusion": "pipelines.registry.diffusion_pyfunc",
}  # as files, with their imports
PARAMS = read_yaml("params.yaml")


def body(stage: str) -> dict:
    """What a stage says of itself, also where it repeats over something."""
    return STAGES[stage].get("do", STAGES[stage])


def entry(stage: str) -> str:
    """The module that a stage runs."""
    words = shlex.split(body(stage)["cmd"])
    assert words[:2] == ["python", "-m"]
    return words[2]


def file_of(module: str) -> Path | None:
    """The file of a module of ours, None for any other name."""
    path = ROOT.joinpath(*module.split("."))
    if module.split(".")[0] not in PACKAGES:
        return None
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, with their packages; not those for type checkers alone."""
    names = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # `ast.walk` comes to what is inside later
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = path.relative_to(ROOT).parent.parts
            base = [*parts[: len(parts) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    parents = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, 4)}
    return {name for name in parents if file_of(name)}


def code_of(module: str) -> set[str]:
    """All files of ours that running a module loads, as paths in the repository."""
    todo, seen = [module, module.split(".")[0]], set()
    while todo:
        path = file_of(todo.pop())
        if path not in seen:
            seen.add(path)
            todo += imports(path)
    return {path.relative_to(ROOT).as_posix() for path in seen}


# What a stage uses and does not name, with the reason.
LEFT_OUT = {
    "pipelines/common": "how a stage is started and ends; DVC tracks the values of params.yaml itself",
    "pipelines/cluster": "where a stage runs, as the block `ray` of params.yaml says, which is in no cache key either",
    "pipelines/tracking": "who is told of a stage",
    "ipt/files.py": "writes what it is given",
    "ipt/restoring/budget.py": "how much memory a picture may take, not what becomes of it",
    "ipt/restoring/free_memory.py": "how much of it there is",
}
PACKED = {"register": "ipt"}  # a package that a stage puts whole into what it makes


def is_left_out(name: str) -> bool:
    return name.endswith("/__init__.py") or any(name == each or name.startswith(f"{each}/") for each in LEFT_OUT)


def as_deps(files: set[str]) -> list[str]:
    """Files as dvc.yaml names them: a folder where two or more of its files are used, else the one file.

    What stands right in `ipt` or `pipelines` is named by itself.
    """
    used = sorted(name for name in files if not is_left_out(name))
    folders = Counter(name.rpartition("/")[0] for name in used if name.count("/") > 1 or name.startswith("degrad"))
    whole = {folder for folder, count in folders.items() if count > 1}
    return sorted({folder if (folder := name.rpartition("/")[0]) in whole else name for name in used})


def code_deps(stage: str) -> list[str]:
    """What dvc.yaml has to say of the code that a stage uses, after its own file."""
    files = code_of(entry(stage)) | (code_of(REGISTERED[stage]) if stage in REGISTERED else set())
    if stage in PACKED:
        files = {name for name in files if not name.startswith(f"{PACKED[stage]}/")}
    own = f"pipelines/{stage}.py"
    return [own, *as_deps(files - {own}), *([PACKED[stage]] if stage in PACKED else [])]


def test_imports_are_followed():
    """The reader of imports itself."""
    code = code_of("pipelines.compress")
    assert {"pipelines/compress.py", "pipelines/common/params.py", "pipelines/__init__.py"} <= code
    assert {"ipt/biases/compress.py", "ipt/network/modulation.py", "ipt/__init__.py", "ipt/model.py"} <= code
    assert {"degradations/recipe.py", "degradations/rain.py"} <= code_of("pipelines.synthesize")
    assert not any(name.startswith("degradations/") for name in code)  # other physics does not retrain a model
    assert "pipelines/train.py" not in code
    assert "pipelines/registry/pyfunc.py" in code_of("pipelines.registry.pyfunc")


def test_folders_are_named_where_two_of_their_files_are_used():
    files = {"ipt/a/x.py", "ipt/a/y.py", "ipt/b/z.py", "ipt/b/__init__.py", "ipt/pixels.py", "ipt/metrics.py"}
    assert as_deps(files) == ["ipt/a", "ipt/b/z.py", "ipt/metrics.py", "ipt/pixels.py"]
    assert as_deps({"pipelines/common/params.py", "ipt/files.py", "degradations/a.py", "degradations/b.py"}) == [
        "degradations"
    ]


def test_what_is_left_out_exists_and_has_a_reason():
    for name, reason in LEFT_OUT.items():
        assert (ROOT / name).exists()
        assert reason


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_among_a_stages_deps_is_what_it_uses(stage):
    expected = code_deps(stage)
    assert len(expected) > 2
    named = [dep for dep in body(stage)["deps"] if dep.split("/")[0] in PACKAGES]
    assert sorted(named) == sorted(expected), f"{stage}: in dvc.yaml:\n" + "\n".join(f"- {dep}" for dep in expected)


def test_dvc_yaml_can_be_read():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 200


@pytest.mark.parametrize("stage", STAGES)
def test_params_of_a_stage_exist(stage):
    names = body(stage)["params"]
    assert names
    over = STAGES[stage].get("foreach")
    keys = list(PARAMS["tasks"]) if over == "${tasks}" else [""]
    assert over in (None, "${tasks}")
    for key in keys:
        for name in names:
            block = PARAMS
            for part in name.replace("${key}", key).split("."):
                assert part in block, f"{stage}: params.yaml has no {name}"
                block = block[part]


def test_every_block_of_params_is_some_stages_or_a_commands_or_says_only_where_to_train():
    read = {name.split(".")[0] for stage in STAGES for name in body(stage)["params"]}
    assert read | {"promote", "decay"} == set(PARAMS) - {"ray"}  # moving to a cluster makes nothing out of date
    assert (ROOT / "pipelines" / "promote.py").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_stage_file_and_block_share_a_name(stage):
    assert entry(stage) == f"pipelines.{stage}"
    assert (ROOT / "pipelines" / f"{stage}.py").is_file()
    assert stage in PARAMS
    assert stage in body(stage)["params"]


def test_the_flow_is_the_designs():
    assert list(DEFAULT) == [
        "prepare",
        "synthesize",
        "understand",
        "analyze",
        "train",
        "compress",
        "evaluate",
        "register",
    ]


def test_dvc_compares_one_file_of_few_numbers():
    """Every number in a metrics file is a column of `dvc metrics show` and `dvc exp show`."""
    metrics = {name: [next(iter(each)) for each in body(name).get("metrics", [])] for name in STAGES}
    assert {name: files for name, files in metrics.items() if files} == {"evaluate": ["metrics/headline.json"]}
    reports = [out for name in DEFAULT for out in body(name)["outs"] if "metrics/" in str(out)]
    assert len(reports) == 8  # one of each other stage, and the choice of layers: not cached, so that they are in git
    assert all(isinstance(out, dict) and next(iter(out.values())) == {"cache": False} for out in reports)


def test_optional_stages_stand_at_the_top_of_the_repository_and_no_other_needs_them():
    assert list(OPTIONAL) == ["diffusion"]
    assert all(stage["wdir"] == "../.." for stage in OPTIONAL.values())
    outs = {next(iter(out)) if isinstance(out, dict) else out for s in OPTIONAL.values() for out in s["outs"]}
    assert not outs & {dep for stage in DEFAULT for dep in body(stage)["deps"]}


@pytest.mark.parametrize("folder", ["data/photos/mine", "data/real_pairs/mine", "data/photos"])
def test_dvc_add_takes_what_people_put_into_data(folder, tmp_path, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
        return done.stdout

    git("init", "-q")
    for name in (".gitignore", ".dvcignore", "data/photos/.gitignore", "data/real_pairs/.gitignore"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, name)
    git("add", "-A")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    Repo.init().close()
    for name in ("clean/train.parquet", "photos/mine/a.png", "real_pairs/mine/clean/a.png"):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data", name).write_text("x")
    if folder == "data/photos":  # of which a file of ours is in git
        git("rm", "-rq", "--cached", folder)
    with Repo(".") as repo:
        repo.add(folder)
    with Repo(".") as repo:
        assert [stage.relpath for stage in repo.index.stages] == [f"{folder}.dvc"]  # found by pull, push and repro
    untracked = git("status", "--porcelain", "--untracked-files=all", "data").splitlines()
    added = {f"?? {folder}.dvc"} | (
        {"D  data/photos/.gitignore", "?? data/.gitignore"} if folder == "data/photos" else set()
    )
    assert set(untracked) == added
