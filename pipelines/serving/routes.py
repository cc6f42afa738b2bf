"""The service's routes: the page, restoring, and what watches over a service asks."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ipt.page.description import ABOUT, LOOK, RESTORE, refusals
from ipt.page.guard import Guard
from ipt.page.routes import look_answer, new_app
from pipelines.serving.service import Service

_TOKEN = "A token is asked for, and this is not it."
_MORE = refusals({401: _TOKEN, 429: "As many requests as there is room for are inside.", 504: "Not done in time."})


def _with_more(route: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a route of the page, and how this service refuses beside that."""
    return route | {"responses": route["responses"] | _MORE}


def create_app(service: Service) -> FastAPI:
    """The application of a replica, which answers with `service`."""
    app = new_app()
    app.add_middleware(Guard, names=None)  # the names that a proxy has for it are not known here

    @app.get("/about", **ABOUT)
    async def answer_about() -> dict[str, Any]:
        return service.about()

    @app.post("/look", **_with_more(LOOK), response_class=Response)
    async def answer_look(request: Request) -> Response:
        return look_answer(await service.look(request))

    @app.post("/restore", **_with_more(RESTORE), response_class=Response)
    async def answer_restore(request: Request) -> Response:
        return await service.restore(request)

    @app.get("/healthz", operation_id="healthz", summary="The service lives")
    async def answer_health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        operation_id="readyz",
        summary="The service works and has room in its queue",
        responses=refusals({503: "It has not, restores nothing, or is stopping."}),
    )
    async def answer_ready() -> dict[str, str]:
        return await service.ready()

    @app.get(
        "/metrics",
        operation_id="metrics",
        summary="For Prometheus",
        response_class=PlainTextResponse,
        responses=refusals({401: _TOKEN}),
    )
    async def answer_metrics(request: Request) -> Response:
        return Response(service.metrics(request), media_type="text/plain; version=0.0.4")

    return app
