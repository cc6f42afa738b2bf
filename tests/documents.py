"""The code blocks of the documents, and whether what they name is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("*.md", "docs/*.md", "ipt/released/README.md")
LANGUAGES = {"sh", "python", "yaml", "json", "text", ""}  # the last two show something: no code
# What a block may need, said by a comment above it, `<!-- needs: page -->`. A block that says nothing is run.
RUN_WITH = {
    "page": "`ipt serve` at 127.0.0.1:8000",
    "registry": "a version of instruct-ipt, champion and candidate, in an MLflow registry",
}
ONLY_LOOKED_AT = {
    "cluster": "several machines",
    "docker": "Docker, and what its images fetch",
    "gpu": "a GPU",
    "minutes": "minutes or hours of work, or what they made",
    "server": "what runs until it is stopped, or asks another server than the page",
}
# curl stands on every machine that a person asks a service from; the last one test_deployment.py installs and runs.
BUILT_IN = {".", "curl", "export", "printf", "source", "openapi-python-client"}
_COMMENT = re.compile(r"<!--\s*needs?\b(.*?)-->", re.DOTALL)
_OPERATORS = re.compile(r"[;&|()<>]+")
_REMARK = re.compile(r"(^|\s)#\s.*")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block: what is in it, where it stands, and what it says that it needs."""

    document: str
    line: int  # of its first line of code, from 1
    language: str
    code: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether tests run it."""
        return not set(self.needs) & set(ONLY_LOOKED_AT)


def all_blocks() -> list[Block]:
    """Every fenced block of the documents; a ValueError for a comment `needs` that stands above none."""
    paths = sorted({path for pattern in DOCUMENTS for path in ROOT.glob(pattern)})
    return [block for path in paths for block in blocks_of(path.read_text(), str(path.relative_to(ROOT)))]


def blocks_of(text: str, document: str) -> list[Block]:
    """As `all_blocks`, of one text."""
    blocks, needs, found = [], None, []
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            names = tuple(name.strip() for name in (needs or ":")[1:].split(",") if name.strip())
            blocks.append(Block(document, token.map[0] + 2, token.info, token.content, names))
            needs = None
        comments = [each.content for each in [token, *(token.children or [])] if each.type.startswith("html_")]
        found = [match[1] for content in comments if (match := _COMMENT.search(content))]
        if needs is not None or (found and token.type != "html_block"):
            break
        needs = found[0] if found else None
    if needs is not None or found:
        raise ValueError(f"{document}: expected a block right below each comment `needs: NAME`")
    return blocks


def commands(code: str) -> list[list[str]]:
    """The words of each simple command of a shell text, without assignments and what goes where."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(_REMARK.sub("", line), posix=True, punctuation_chars=True)
        lexer.commenters, lexer.whitespace_split = "", True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if not _OPERATORS.fullmatch(word):
                command.append(word)
            elif ">" not in word and "<" not in word:
                while command and _ASSIGNMENT.match(command[0]):
                    del command[0]
                if command:
                    found.append(command)
                command = []
    return found


def check_command(words: list[str]) -> None:
    """Raise an AssertionError where a command names a target, module, extra or flag that is not there.

    Flags of our modules are looked for in their text: to start each for its `--help` takes seconds.
    """
    program, *rest = words
    match program:
        case "make":
            done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        case "pip":
            _check_pip(rest)
        case "python" | ".venv/bin/python":
            _check_python(rest)
        case "ipt":
            _check_click("ipt.cli", rest)
        case _:
            assert program in BUILT_IN or shutil.which(program, path=search_path()), f"{program}: no such command"


def search_path() -> str:
    """Where commands are looked for: first in this Python's environment."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def check_foreign_command(words: list[str]) -> None:
    """As `check_command`, of the commands of DVC, MLflow and Ray, whose imports take a while."""
    program, *rest = words
    homes = {"mlflow": "mlflow.cli", "ray": "ray.scripts.scripts", "serve": "ray.serve.scripts"}
    if program == "dvc":
        from dvc.cli.parser import get_main_parser

        get_main_parser().parse_args(rest)  # raises DvcParserError
    elif program in homes:
        _check_click(homes[program], rest)


def _check_pip(words: list[str]) -> None:
    assert words[0] == "install", words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(project["optional-dependencies"])
    for word in words:
        if match := re.fullmatch(r"(?:\.|instruct-ipt)\[([a-z,-]+)\]", word):
            assert set(match[1].split(",")) <= known, f"{word}: pyproject.toml has {sorted(known)}"
        assert not word.endswith(".txt") or (ROOT / word).is_file(), word


def _check_python(words: list[str]) -> None:
    if words[0] == "-c":
        ast.parse(words[1])
        return
    assert words[0] == "-m", words
    spec = importlib.util.find_spec(words[1])
    assert spec, f"{words[1]}: no such module"
    if Path(spec.origin).is_relative_to(ROOT):
        text = Path(spec.origin).read_text()
        assert '"__main__"' in text, f"{words[1]}: no command"
        for flag in (word.split("=")[0] for word in words[2:] if word.startswith("--")):
            assert f'"{flag}"' in text, f"{words[1]}: no {flag}"


def _check_click(module: str, words: list[str]) -> None:
    command = _click_command(module)
    rest = list(words)
    while rest and hasattr(command, "commands"):
        assert rest[0] in command.commands, f"{module}: no command {rest[0]}; there are {sorted(command.commands)}"
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for flag in (word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)):
        assert flag in known, f"{module} {command.name}: no {flag}; there are {sorted(known)}"


def _click_command(module: str):
    home = importlib.import_module(module)
    if hasattr(home, "app"):
        from typer.main import get_command

        return get_command(home.app)
    return home.cli


def run_shell(code: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a shell block in a folder; `make` is a dry run in the repository, `pip` and an activation do nothing."""
    stubs = f"pip() {{ :; }}\nsource() {{ :; }}\nmake() {{ command make -n -C '{ROOT}' \"$@\" > /dev/null; }}\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", stubs + code],
        cwd=folder,
        env=environment | {"PATH": search_path(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
