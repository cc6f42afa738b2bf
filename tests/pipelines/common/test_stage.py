"""How stages end: what cannot go on is told in words, mistakes in the code keep their traceback."""

import sys

import pytest
import ray.train

from pipelines.common.stage import reason, run


class RayError(Exception):
    """Shaped as Ray's: the cause is kept as an attribute."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a long remote traceback")
        self.cause = cause


class TrainingFailedError(RuntimeError):
    """Shaped as Ray Train's: the failures of the workers by rank."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("training failed")
        self.worker_failures = failures


@pytest.mark.parametrize("error", [ValueError("bad params"), OSError(28, "No space left on device")])
def test_what_cannot_go_on_is_told_in_words(error, capsys):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_mistake_in_the_code_keeps_its_traceback():
    def main() -> None:
        raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"):
        run(main)


def test_a_good_end_is_silent(capsys):
    run(lambda: None)
    assert capsys.readouterr().err == ""


def test_the_cause_inside_of_rays_exceptions_is_what_is_told():
    assert reason(RayError(ValueError("shard a is damaged"))) == "shard a is damaged"
    assert reason(TrainingFailedError({0: RayError(ValueError("worker 0"))})) == "worker 0"
    assert reason(ray.train.ControllerError(ValueError("shard a is damaged"))) == "shard a is damaged"


def test_what_ray_passes_on_as_text_is_told_too(capsys):
    text = "Traceback (most recent call last):\n  File\npipelines.data.shards.ShardError: a: damaged; remake it\n\nAnd"

    class UserCodeError(Exception):
        cause = Exception("UDF failed to process a data block.")

        def __str__(self) -> str:
            return text

    class WorkerGroupError(Exception):
        worker_failures = {0: UserCodeError()}  # noqa: RUF012

    def main() -> None:
        raise WorkerGroupError("training failed")

    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr().err == "error: a: damaged; remake it\n"
    text = text.replace("pipelines.data.shards.ShardError", "KeyError")  # a mistake in the code
    with pytest.raises(WorkerGroupError):
        run(main)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--steps", "3"], 2), (["derain"], 2)])
def test_a_command_without_arguments_explains_itself_and_refuses_them(monkeypatch, capsys, arguments, status):
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    called = []
    with pytest.raises(SystemExit) as ended:
        run(lambda: called.append(1), "Stage: what it does.\n\nAnd how.")
    assert (ended.value.code, called) == (status, [])
    told = capsys.readouterr()
    if status:
        assert told.err.splitlines()[-1].endswith(f"error: unrecognized arguments: {' '.join(arguments)}")
    else:
        assert "Stage: what it does.\n\nAnd how." in told.out


def test_a_command_that_reads_its_own_arguments_is_left_to_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--task", "derain"])
    called = []
    run(lambda: called.append(sys.argv[1:]))
    assert called == [["--task", "derain"]]
