"""The service as Ray Serve's application: its settings, from whoever starts it, and what a replica gets."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from ray import serve
from ray.serve import Application

from ipt.photos.images import MAX_PIXELS
from pipelines.serving.routes import create_app
from pipelines.serving.service import Service, Settings
from pipelines.tracking.store import tracking_uri

TOKEN = "INSTRUCT_IPT_TOKEN"  # environment variable
DEFAULTS: dict[str, Any] = {
    "model": "models:/instruct-ipt@champion",
    "device": "cpu",
    "precision": "auto",
    "batch": 4,
    "batch_wait": 0.01,
    "queue": 32,
    "max_body": 32_000_000,
    "max_pixels": 12_000_000,
    "body_timeout": 30.0,
    "timeout": 60.0,
    "watch": 10.0,
}
_POSITIVE = ("threads", "batch", "batch_wait", "queue", "max_body", "max_pixels", "body_timeout", "timeout", "watch")
_MANY = 10_000  # requests that Ray lets in: whom to refuse, and how, is the service's to say


class Replica(Service):
    """The service with its routes, as Ray Serve runs it."""

    def __serve_build_asgi_app__(self) -> FastAPI:  # what `serve.ingress` asks for, once the service is there
        return create_app(self)


def settings_from(arguments: dict[str, Any]) -> tuple[Settings, int]:
    """The settings that differ from DEFAULTS in `arguments`, as text or numbers, and how many replicas are wanted.

    A replica has one thread where `threads` does not say otherwise; the token is the environment's. Raises ValueError
    for an unknown argument, a value out of range, and where there is no token and `without_token` is not true.
    """
    known = (*DEFAULTS, "threads", "replicas", "without_token")
    for name in arguments:
        if name not in known:
            raise ValueError(f"{name}: unknown argument; expected {', '.join(known)}")
    values = DEFAULTS | {"threads": 1, "replicas": 1, "without_token": False} | arguments
    without_token = str(values.pop("without_token")).lower()
    if without_token not in ("true", "false"):
        raise ValueError(f"without_token: expected true or false, got {without_token!r}")
    try:
        replicas = TypeAdapter(int).validate_python(values.pop("replicas"))
        settings = TypeAdapter(Settings).validate_python(values | {"token": token(), "prints": True})
    except ValidationError as error:
        told = error.errors()[0]
        where = told["loc"][0] if told["loc"] else "replicas"
        raise ValueError(f"{where}: {told['msg']}, got {told['input']!r}") from None
    for name, value in {"replicas": replicas, **{name: getattr(settings, name) for name in _POSITIVE}}.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a positive number, got {value}")
    if settings.max_pixels > MAX_PIXELS:
        raise ValueError(f"max_pixels: expected at most {MAX_PIXELS}, got {settings.max_pixels}")
    if settings.token is None and without_token == "false":
        raise ValueError(
            f"others may reach it, and no token is asked for; set {TOKEN} to a secret that they have to know, or "
            "give without_token: true where everybody may use it"
        )
    return settings, replicas


def token() -> bytes | None:
    """The digest of the token in the environment, None where none is asked for; ValueError for an empty one."""
    text = os.environ.get(TOKEN)
    if text is None:
        return None
    if not text.strip():
        raise ValueError(f"{TOKEN}: expected a token, got nothing; give it a value, or unset it where nobody is asked")
    return hashlib.sha256(text.strip().encode()).digest()


def application(settings: Settings, replicas: int = 1) -> Application:
    """What `serve.run` starts; each replica has a model of its own."""
    environment = {"MLFLOW_TRACKING_URI": tracking_uri()}  # which may be a file of the folder we are in
    deployment = serve.deployment(
        name="service",
        num_replicas=replicas,
        max_ongoing_requests=_MANY,
        graceful_shutdown_timeout_s=settings.timeout,
        ray_actor_options={
            "num_cpus": 1,
            "num_gpus": int(settings.device != "cpu"),
            "runtime_env": {"env_vars": environment},
        },
    )(serve.ingress()(Replica))
    return deployment.bind(settings)
