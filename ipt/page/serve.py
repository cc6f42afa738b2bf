"""`ipt serve`: the page on this computer until it is interrupted."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from ipt.model import InstructIPT
from ipt.photos.file_processes import FileProcesses
from ipt.restoring.budget import MemoryBudget, file_limits

if TYPE_CHECKING:
    import uvicorn

INSTALL = "pip install 'instruct-ipt[page]'"
MAX_BODY = 400_000_000  # bytes; a picture of 60 megapixels and 16 bits, not compressed, has 360 million
_NEEDED = ("fastapi", "uvicorn", "python_multipart")
_LAST_SECONDS = 2  # that requests have once the service is interrupted


def serve_page(load: Callable[[], InstructIPT], name: str, host: str, port: int, browser: bool) -> None:
    """Serve the page at http://HOST:PORT until SIGINT or SIGTERM; `port` 0 takes one that is free.

    The address is printed and, where there is one and `browser` asks for it, opened in a browser. Raises ValueError
    where the extra is missing or the address cannot be had, and what `load` raises.
    """
    check_extra()
    import uvicorn

    from ipt.page.app import create_app
    from ipt.page.jobs import Workshop

    budget = MemoryBudget.of_what_is_free()
    share, network = budget.files(2), budget.network(1)
    with _listen(host, port) as listener, FileProcesses(share.count, file_limits(share)) as files:
        workshop = Workshop(load(), files, memory=network.each)
        here = socket.gethostname()
        app = create_app(workshop, name, MAX_BODY, names={host, here, f"{here}.local"})
        address = _address(host, listener.getsockname()[1])
        print(f"ipt: restoring photographs at {address} (Ctrl+C ends it)", flush=True)
        if not only_here(host):
            print(f"ipt: {host}: whoever reaches this computer can use the page", file=sys.stderr)
        if browser and _has_browser():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_LAST_SECONDS)
        with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
            _server(config, workshop.close).run(sockets=[listener])
        workshop.close()


def _server(config: uvicorn.Config, before_exit: Callable[[], None]) -> uvicorn.Server:
    """A server that, once interrupted, calls `before_exit` before it waits for the requests that are inside."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            before_exit()
            super().handle_exit(sig, frame)

    return Server(config)


def check_extra() -> None:
    """Raise ValueError, with what installs them, where packages of the extra `page` are missing."""
    missing = [name.replace("_", "-") for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"serve: the page needs {', '.join(missing)}; install with: {INSTALL}")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while attempting")[0]
        raise ValueError(f"{host}:{port}: {reason}; name another with --host and --port") from error


def _address(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def only_here(host: str) -> bool:
    """Whether who listens at `host` is reached from this computer alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_browser() -> bool:
    """Whether there is a screen: without one, Linux would open a browser in this terminal, over our own lines."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
