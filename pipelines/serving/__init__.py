"""The HTTP service behind `pipelines/serve.py`, and its builder for Ray's own commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application


def app(arguments: dict[str, Any]) -> Application:
    """The application for `serve run`, `serve build` and KubeRay: `serve run pipelines.serving:app model=FOLDER`.

    `arguments` are the options of `python -m pipelines.serve` but host and port, with underscores, `replicas`, and
    `without_token`: where Ray listens is not known here, so a service that asks for no token has to be asked for.
    Raises ValueError for an unknown one, a value out of range, and a token that is missing.
    """
    from pipelines.serving.deployment import application, settings_from

    settings, replicas = settings_from(arguments)
    return application(settings, replicas)


def __getattr__(name: str) -> Application:
    """`pipelines.serving:default`, for `serve build`, which takes no builder: the application with all defaults."""
    if name != "default":
        raise AttributeError(f"module 'pipelines.serving' has no attribute '{name}'")
    return app({})
