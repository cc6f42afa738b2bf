"""A service that restores photographs over HTTP, on Ray Serve.

    python -m pipelines.serve [--model models:/instruct-ipt@champion] [--port 8000]

The page at GET /; POST /restore with a picture, and a task or an instruction or neither; GET /healthz, /readyz,
/metrics, /openapi.json. Runs until it is interrupted; its log, a line of JSON for each request, is on standard output.
docs/serving.md has examples.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from typing import Any, TextIO

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from ipt.page.serve import only_here
from ipt.photos.images import MAX_PIXELS
from pipelines.cluster.connection import connected
from pipelines.common.processes import usable_cores
from pipelines.common.stage import run
from pipelines.serving.deployment import DEFAULTS, TOKEN, application, token
from pipelines.serving.model import load
from pipelines.serving.service import Settings

NAME = "instruct-ipt"


def serve_forever(settings: Settings, host: str, port: int) -> None:
    """Run the service until SIGINT or SIGTERM; requests that are inside by then are finished."""
    _check_port(host, port)
    # What is wrong with it is told better from here than through Ray.
    load(settings.model, "cpu", 0, settings.precision)
    output = sys.stdout
    # On a busy machine Ray's process that speaks HTTP starts in more than the 5 seconds after which Ray kills it.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    with contextlib.redirect_stdout(sys.stderr), connected():  # what Ray says is no part of the log
        if serve.status().applications:
            raise ValueError("Ray Serve runs on this cluster already, for somebody else; use another cluster")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set its own by now
        handle = None
        try:
            handle = start(settings, host, port)
            print(f"serve: {settings.model} at http://{host}:{port}", file=sys.stderr, flush=True)
            _print_log(handle, output)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):  # once is enough
                signal.signal(number, signal.SIG_IGN)
            print("serve: stopping", file=sys.stderr, flush=True)
            if handle:
                _drain(handle, settings, output)
        finally:
            serve.shutdown()


def start(settings: Settings, host: str, port: int) -> DeploymentHandle:
    """Start the service on the connected cluster and wait until it answers."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options=HTTPOptions(host=host, port=port), logging_config={"enable_access_log": False})
    return serve.run(application(settings), name=NAME, route_prefix="/")


def _print_log(handle: DeploymentHandle, output: TextIO) -> None:
    """Print what the service logs, for ever; it may be restarted meanwhile."""
    while True:
        lines: Any = handle.options(stream=True).log_lines.remote()  # a generator, since it streams
        try:
            for text in lines:
                print(text, file=output, flush=True)
        except ray.exceptions.RayError as error:
            print(f"serve: the service is restarted: {type(error).__name__}", file=sys.stderr, flush=True)
            time.sleep(1)
        finally:
            lines.cancel()


def _drain(handle: DeploymentHandle, settings: Settings, output: TextIO) -> None:
    """Wait for the requests that are inside, and print what is left of the log: Ray's own end would cut them off."""
    try:
        rest = handle.drain.remote().result(timeout_s=settings.body_timeout + settings.timeout)
        print(rest, end="\n" if rest else "", file=output, flush=True)
    except (ray.exceptions.RayError, TimeoutError) as error:
        print(f"serve: requests were cut off: {type(error).__name__}", file=sys.stderr, flush=True)


def _check_port(host: str, port: int) -> None:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"{host}:{port}: {error.strerror}; name another with --host and --port") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.serve",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", help="models:/NAME@ALIAS, or a checkpoint folder")
    add("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for all")
    add("--port", type=int, default=8000)
    add("--device", choices=("cpu", "cuda"))
    add("--precision", choices=("auto", "fp32", "bf16"), help="auto: bf16 where the device has it")
    add("--threads", type=_positive(int), default=usable_cores(), help="batches at once on the CPU")
    add("--batch", type=_positive(int), help="pictures that go through the network together, at most")
    add("--batch-wait", type=_positive(float), help="seconds that a picture waits for others")
    add("--queue", type=_positive(int), help="requests inside; more get 429")
    add("--max-body", type=_positive(int), help="bytes; more get 413")
    add("--max-pixels", type=_positive(int), help="of a picture; more get 413")
    add("--body-timeout", type=_positive(float), help="seconds for a body to come; then 408")
    add("--timeout", type=_positive(float), help="seconds for a picture; then 504")
    add("--watch", type=_positive(float), help="seconds between looks at where the alias points")
    parser.set_defaults(**DEFAULTS)
    return parser


def _positive(kind: type):
    def parse(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def main() -> None:
    """Read the command line and serve."""
    arguments = vars(_parser().parse_args())
    host, port = arguments.pop("host"), arguments.pop("port")
    if arguments["max_pixels"] > MAX_PIXELS:
        raise ValueError(f"--max-pixels: expected at most {MAX_PIXELS}, got {arguments['max_pixels']}")
    if arguments["device"] != "cpu":
        arguments["threads"] = 1  # a GPU does one batch after the other
    digest = token()
    if digest is None and not only_here(host):
        raise ValueError(
            f"--host {host}: others reach it, and no token is asked for; set {TOKEN} to a secret that they have to "
            "know, or leave --host away"
        )
    serve_forever(Settings(**arguments, token=digest), host, port)


if __name__ == "__main__":
    run(main)
