"""Code killed before each of its system calls that changes a file, in turn; and what the next run makes of that.

Linux's ptrace stops a forked child at such calls, those of native libraries and their threads too, so nothing has to
be compiled, patched or guessed; seccomp lets all other calls pass. The forks come out of an interpreter of its own, in
which no thread was begun. The code starts no processes.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CALLS = {  # what changes a file, a folder or a lock: its number on x86_64 and on aarch64, -1 where there is none
    "write": (1, 64), "open": (2, -1), "pwrite64": (18, 68), "writev": (20, 66), "sendfile": (40, 71),
    "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83), "truncate": (76, 45), "ftruncate": (77, 46),
    "rename": (82, -1), "mkdir": (83, -1), "rmdir": (84, -1), "creat": (85, -1), "link": (86, -1), "unlink": (87, -1),
    "symlink": (88, -1), "chmod": (90, -1), "fchmod": (91, 52), "openat": (257, 56), "mkdirat": (258, 34),
    "unlinkat": (263, 35), "renameat": (264, 38), "linkat": (265, 37), "symlinkat": (266, 36), "fchmodat": (268, 53),
    "fallocate": (285, 47), "pwritev": (296, 70), "renameat2": (316, 276), "copy_file_range": (326, 285),
}  # fmt: skip
COLUMN = {"x86_64": 0, "aarch64": 1}
OPENS = {"open": 1, "openat": 2}  # which argument says for what
TRACEME, CONTINUE, SETOPTIONS, GET_SYSCALL_INFO = 0, 7, 0x4200, 0x420E
OPTIONS = 8 | 0x80 | 1 << 20  # traces threads too, is told what seccomp finds; who is traced dies with who traces
ANY_CHILD = 0x40000000  # __WALL: threads too
AT_CALL = signal.SIGTRAP | 7 << 8  # in what waitpid returns
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2  # of prctl(2)
LOAD, IF_EQUAL, RETURN, TRACE, ALLOW = 0x20, 0x15, 0x06, 0x7FF00000, 0x7FFF0000  # of linux/filter.h and seccomp.h

# Ahead of code that writes models.
MODELS = """
import torch
from pathlib import Path
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
layers = ("*.query_key_value", "*.project", "*.expand")
config = ModelConfig(("denoise", "derain"), 8, 2, (1, 1), 1, 4, 1.5, 2, layers)
def fill(network, number):
    torch.manual_seed(number)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()
def model(number):
    return fill(InstructIPT(config), number)
old_model, new = model(0), model(1)
"""


@dataclass(frozen=True)
class Crash:
    """One run that was killed."""

    call: str  # that it did not make any more
    found: Path  # the folder as it left it
    after: Path  # a copy, in which the next run was not killed


def crash_points(folder: Path, write: str, setup: str = "", before: str = "") -> list[Crash]:
    """Run the code `write` in copies of `folder`, killed before its first, second, ... call that changes something.

    The last run is not killed: its call is "end". After each, `write` runs once more in a copy. `setup` runs once, in
    the interpreter that all come out of; `before` in `folder`, ahead of the first. Copies lie beside `folder`. Raises
    RuntimeError where a run that was not killed fails. Where the machine lets nobody trace a child the test is skipped.
    """
    job = {"folder": str(folder.resolve()), "write": write, "setup": setup, "before": before}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    if refused := re.search(r"\[Errno \d+\] (ptrace 0x|seccomp)[^\n]*", done.stderr if done.returncode else ""):
        import pytest  # here: what is killed imports this file and has no use for it

        pytest.skip(f"NO TRACING: what a kill leaves is not tested here; {refused[0]}")
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return [Crash(call, Path(found), Path(after)) for call, found, after in json.loads(done.stdout.splitlines()[-1])]


def tree(folder: Path) -> dict[str, bytes | None]:
    """The content of each file below `folder` by its name, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def shown(folder: Path) -> dict[str, bytes | None]:
    """As `tree`, of what lies under names that are no temporary ones."""
    return {name: content for name, content in tree(folder).items() if "/." not in f"/{name}"}


def check_old_or_new(crashes: list[Crash], *wholes: str) -> None:
    """All of the old until some call, all of the new from there on, and nothing but the new after the next run.

    Each of `wholes`, files or folders, by itself; all together where none is named.
    """
    found = [shown(crash.found) for crash in crashes]
    for whole in wholes or ("",):
        states = [{name: each[name] for name in each if f"{name}/".startswith(whole)} for each in found]
        assert states[0] != states[-1], whole
        changes = [number for number, (one, other) in enumerate(itertools.pairwise(states)) if one != other]
        assert len(changes) == 1, (whole, [crashes[number].call for number in changes])
    for crash in crashes:
        assert tree(crash.after) == found[-1], f"killed before {crash.call}"


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, as far as the entry of a call."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 2),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
        ("rest", ctypes.c_uint64 * 4),
    )


def _ptrace(request: int, process: int = 0, address: object = None, data: object = None) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    if library.ptrace(request, process, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")


def _numbers() -> dict[int, str]:
    column = COLUMN[platform.machine()]
    return {numbers[column]: name for name, numbers in CALLS.items() if numbers[column] >= 0}


def _be_traced() -> None:
    """From here on each of CALLS stops this process, of whichever thread, until who traces it lets it go on."""
    numbers = list(_numbers())
    instructions = [(LOAD, 0, 0, 0)]  # the number of the call
    instructions += [(IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    instructions += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, TRACE)]
    filter_ = _Filter(len(instructions), b"".join(struct.pack("HBBI", *each) for each in instructions))
    library = ctypes.CDLL(None, use_errno=True)
    _ptrace(TRACEME)
    os.kill(os.getpid(), signal.SIGSTOP)
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if library.prctl(SET_SECCOMP, FILTER, ctypes.byref(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def _call(process: int) -> str | None:
    """The name of the call that a stopped process is about to make, where that changes something."""
    info = _Info()
    _ptrace(GET_SYSCALL_INFO, process, ctypes.sizeof(info), ctypes.addressof(info))
    name = _numbers()[info.number]
    if name in OPENS and not info.arguments[OPENS[name]] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return None
    return name


def _child(job: dict, folder: Path, names: dict, traced: bool) -> int:
    """Start the code in a fork; the number of its process."""
    process = os.fork()
    if process:
        return process
    try:
        os.chdir(folder)
        if traced:
            _be_traced()
        exec(job["write"], dict(names))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _killed(job: dict, folder: Path, names: dict, calls: int) -> str:
    """Run the code until after that many calls; the call that it did not make, or "end"."""
    first = _child(job, folder, names, traced=True)
    os.waitpid(first, 0)
    _ptrace(SETOPTIONS, first, None, OPTIONS)
    _ptrace(CONTINUE, first)
    while True:
        process, status = os.waitpid(-1, ANY_CHILD)
        if not os.WIFSTOPPED(status):
            if process == first:
                if status:
                    raise RuntimeError(f"a run that was not killed ended with status {status}")
                return "end"
            continue
        if status >> 8 == AT_CALL:
            name = _call(process)
            calls -= name is not None
            if calls < 0 and name:
                os.kill(first, signal.SIGKILL)
                while os.waitpid(-1, ANY_CHILD)[0] != first:
                    pass
                return name
        signals = os.WSTOPSIG(status)
        _ptrace(CONTINUE, process, None, 0 if signals in (signal.SIGTRAP, signal.SIGSTOP) else signals)


def _all(job: dict) -> Iterator[tuple[str, str, str]]:
    names: dict = {}
    start = Path(job["folder"])
    exec(job["setup"], names)
    if job["before"]:
        assert os.waitpid(_child(job | {"write": job["before"]}, start, names, traced=False), 0)[1] == 0
    for calls in itertools.count():
        found, after = (start.with_name(f"{start.name}-{what}-{calls:03d}") for what in ("found", "after"))
        shutil.copytree(start, found, symlinks=True)
        call = _killed(job, found, names, calls)
        shutil.copytree(found, after, symlinks=True)
        if os.waitpid(_child(job, after, names, traced=False), 0)[1]:
            raise RuntimeError(f"after a kill before {call}, number {calls + 1}, the next run failed")
        yield call, str(found), str(after)
        if call == "end":
            return


if __name__ == "__main__":
    print(json.dumps(list(_all(json.loads(sys.argv[1])))))
