"""The command `ipt`: restore photographs, show what an instruction is understood as, export the model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ipt import RELEASED
from ipt.reports import print_left_out, print_reports, printable

if TYPE_CHECKING:  # imported where they are used: `ipt --help` need not wait for torch
    from io import TextIOWrapper

    from ipt.model import InstructIPT
    from ipt.photos.file_processes import FileProcesses
    from ipt.restoring.photographs import Report, Request

CANNOT_GO_ON = (ValueError, OSError, RuntimeError)  # wrong input, files, a registry that does not answer
STOPPED = "ipt: stopped; whole files only were written, the same command does the rest"
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
Model = Annotated[
    str,
    typer.Option(help="instruct-ipt comes with this package; or a checkpoint folder, or models:/NAME@ALIAS of MLflow."),
]

Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]


def print_version(asked: bool) -> None:
    """Print the version of the package and end, where that is asked."""
    if asked:
        from importlib.metadata import version

        print(f"ipt {version('instruct-ipt')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Restore photographs that are noisy, blurred, rainy, hazy or snowy."""


@app.command()
def restore(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders or patterns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder, or a file where the input is one.")],
    model: Model = RELEASED,
    instruction: Annotated[str | None, typer.Option("--instruction", "-i", help="What is wrong, in words.")] = None,
    task: Annotated[str | None, typer.Option(help="What to do, by name. With neither, the picture decides.")] = None,
    strength: Annotated[float, typer.Option(help="How strongly, 0 to 1.5.")] = 1.0,
    tile: Annotated[str, typer.Option(help="Side in pixels of the pieces of a large picture.")] = "auto",
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="What in: bf16 is faster where the hardware has it.")
    ] = "auto",
    quality: Annotated[
        Literal["normal", "best"],
        typer.Option(help="best: a little better, in three to four times the time."),
    ] = "normal",
    kind: Annotated[
        Literal["jpg", "png", "webp", "tif", "bmp"] | None, typer.Option("--format", help="Write this; else as it was.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there; else it is skipped.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Also write before and after side by side.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for each file.")] = False,
) -> None:
    """Restore photographs: the same names and formats in OUTPUT, metadata kept.

    A second call does what is missing. A file that cannot be restored is reported, the others go on; the exit status
    is then 1.
    """
    from ipt.photos.file_processes import FileProcesses
    from ipt.restoring.budget import MemoryBudget, file_limits

    limits = file_limits(MemoryBudget.of_what_is_free().files_alone())
    with ending_in_words(), FileProcesses(1, limits) as processes:  # which starts while torch is imported
        from ipt.restoring.finding import find_photographs
        from ipt.restoring.photographs import Request, check_request

        request = Request(task, instruction, strength, _tile(tile), overwrite, compare, precision, quality)
        others: list[Path] = []
        files = find_photographs(inputs, output, kind and f".{kind}", others.append)
        print_left_out(others)
        loaded = _load(model, device)
        check_request(loaded, request)
        reports = restore_files(loaded, files, request, processes, progress=len(files) > 1 and sys.stderr.isatty())
        status = print_reports(reports, as_json)
    raise typer.Exit(status)  # a RuntimeError: inside the block it would be one that cannot go on


@app.command()
def understand(
    sentences: Annotated[
        list[str] | None, typer.Argument(help="Instructions; none: a line each of standard input.")
    ] = None,
    model: Model = RELEASED,
) -> None:
    """Print, for each instruction, the tasks that it asks for and their probabilities, as a line of JSON."""
    try:
        loaded = _load(model, "cpu")
    except CANNOT_GO_ON as error:
        raise _stop(error) from error
    if not sentences:
        # UTF-8 on Windows too. A line that is not is not understood, the others are.
        cast("TextIOWrapper", sys.stdin).reconfigure(encoding="utf-8", errors="replace")
    failed = False
    for sentence in sentences or (line.rstrip("\r\n") for line in sys.stdin):
        answer: dict[str, object] = {"understood": [], "probabilities": {}}
        try:
            understood, probabilities = loaded.read(sentence)
            answer["understood"] = list(understood)
            answer["probabilities"] = {name: round(value, 3) for name, value in probabilities.items()}
        except ValueError as error:
            answer["error"], failed = str(error), True
        print(json.dumps(answer), flush=True)
    raise typer.Exit(int(failed))


@app.command()
def info(
    model: Model = RELEASED,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Print what the model can do, and what this machine lets it do."""
    from ipt.restoring.memory import describe_machine

    try:
        loaded = _load(model, device)
    except CANNOT_GO_ON as error:
        raise _stop(error) from error
    config = loaded.config
    facts: dict[str, object] = {
        "model": model,
        "tasks": list(config.tasks),
        "numbers": sum(value.numel() for value in loaded.backbone.parameters()),
        "rank": config.rank,
        **describe_machine(loaded),
    }
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<12}{', '.join(value) if isinstance(value, list) else value}")


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for TASK.onnx of each task.")],
    model: Model = RELEASED,
    tasks: Annotated[list[str] | None, typer.Option("--task", help="What to do, by name; again for more.")] = None,
    size: Annotated[
        str, typer.Option(help="Of the pictures, in pixels: dynamic (any), a side, or WIDTHxHEIGHT.")
    ] = "dynamic",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there; else it is skipped.")] = False,
) -> None:
    """Write the model's tasks as ONNX files, for other software; all tasks where none is named.

    Each is run in ONNX Runtime and compared with the model before it is kept.
    """
    with ending_in_words():
        from ipt.export import check_installed, export_tasks, parse_size

        fixed = parse_size(size)
        check_installed()
        loaded = _load(model, "cpu")
        if sys.stderr.isatty():
            print("ipt: tracing the network, a minute or more for a large one", file=sys.stderr)
        for exported in export_tasks(loaded, output, tasks or (), size=fixed, name=model, overwrite=overwrite):
            print(printable(exported.describe()), flush=True)


@app.command()
def serve(
    model: Model = RELEASED,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    device: Device = "auto",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page, where there is one.")] = True,
) -> None:
    """Serve a page on which to restore photographs, on this computer, until it is interrupted."""
    try:
        from ipt.page.serve import serve_page

        serve_page(lambda: _load(model, device), model, host, port, browser)
    except CANNOT_GO_ON as error:
        raise _stop(error) from error


@contextmanager
def ending_in_words() -> Iterator[None]:
    """Turn what ends a command that writes files into a line and an exit status."""
    try:
        yield
    except BrokenPipeError:  # `| head` has seen enough
        raise
    except CANNOT_GO_ON as error:
        raise _stop(error) from error
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        raise typer.Exit(130) from None


def restore_files(
    model: InstructIPT, files: list[tuple[Path, Path]], request: Request, processes: FileProcesses, progress: bool
) -> Iterator[Report]:
    """Restore (source, target) files one after the other; a bar on standard error shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    from ipt.restoring.photographs import restore_file

    bar = track(files, "restoring", console=Console(stderr=True), disable=not progress)
    return (restore_file(model, source, target, request, processes) for source, target in bar)


def _load(model: str, device: str) -> InstructIPT:
    import torch

    from ipt.model import InstructIPT

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU is available to torch here; use --device cpu")
    if model != RELEASED and ":/" not in model[2:] and not Path(model).is_dir():  # C:/ is a drive
        raise ValueError(f"--model {model}: no such folder; leave --model out for the model that comes with ipt")
    return InstructIPT.from_pretrained(model, device)


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--tile: expected auto or a number of pixels, got {text!r}")
    return int(text)


def _stop(error: Exception) -> typer.Exit:
    print(printable(f"ipt: {' '.join(str(error).split())}"), file=sys.stderr)  # one line
    return typer.Exit(2)


if __name__ == "__main__":
    app()
