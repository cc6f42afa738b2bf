"""The service's routes: the page, restoring, and what watches over a service asks."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ipt.page.guard import Guard
from ipt.page.routes import LOOK, RESTORE, look_answer, new_app
from pipelines.serving.service import Service


def create_app(service: Service) -> FastAPI:
    """The application of a replica, which answers with `service`."""
    app = new_app()
    app.add_middleware(Guard, names=None)  # the names that a proxy has for it are not known here

    @app.get("/about", summary="The model, its tasks and the limits")
    async def answer_about() -> dict[str, Any]:
        return service.about()

    @app.post("/look", **LOOK, response_class=Response)
    async def answer_look(request: Request) -> Response:
        return look_answer(await service.look(request))

    @app.post("/restore", **RESTORE, response_class=Response)
    async def answer_restore(request: Request) -> Response:
        return await service.restore(request)

    @app.get("/healthz", summary="The service lives")
    async def answer_health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="The service works and has room in its queue; 503 where it has not")
    async def answer_ready() -> dict[str, str]:
        return await service.ready()

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def answer_metrics(request: Request) -> Response:
        return Response(service.metrics(request), media_type="text/plain; version=0.0.4")

    return app
