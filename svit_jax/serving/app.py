"""The routes of the server, put together."""

import dataclasses
import json
import time

import pydantic
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from svit_jax.api import Assistant
from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.serving.chat import ChatCompletions
from svit_jax.serving.errors import no_such_model
from svit_jax.serving.gate import Admission, Gate
from svit_jax.serving.openapi import description
from svit_jax.serving.page import PAGE, page_response
from svit_jax.serving.replies import Model, ModelList, State, Status
from svit_jax.serving.settings import ServerSettings
from svit_jax.serving.telemetry import Metrics
from svit_jax.serving.warming import WarmUp


@dataclasses.dataclass(frozen=True)
class Service:
    """The application, and what ends it: who is inside, and a way to cancel them."""

    app: Gate
    admission: Admission
    chat: ChatCompletions


def make_service(
    assistant: Assistant,
    engine: ContinuousEngine,
    settings: ServerSettings,
    max_waiting: int,
    warm_up: WarmUp | None = None,
) -> Service:
    """Serves the engine's answers, as the base and as each of the assistant's adapters by its
    name. `max_waiting` requests may be read or wait beside those that decode. Not ready while
    `warm_up` is going."""
    metrics = Metrics(engine)
    admission = Admission(engine.rows + max_waiting)
    assistants = {settings.model: assistant, **assistant.adapted}
    chat = ChatCompletions(assistants, engine, settings, admission)
    created = int(time.time())
    served = {name: Model(id=name, created=created) for name in assistants}
    document = json.dumps(description(settings, list(assistants)))

    def models(request: Request) -> Response:
        return _json(ModelList(data=list(served.values())))

    def one_model(request: Request) -> Response:
        name = request.path_params["model"]
        if name not in served:
            raise no_such_model(name, served)
        return _json(served[name])

    def status() -> Status:
        if engine.broken:
            return "broken"
        if admission.draining:
            return "draining"
        return "warming_up" if warm_up is not None and warm_up.going else "ready"

    def state() -> State:
        return State(status=status(), running=engine.running(), waiting=engine.waiting())

    async def health(request: Request) -> Response:
        found = state()
        return _json(found, 503 if found.status == "broken" else 200)

    async def ready(request: Request) -> Response:
        found = state()
        return _json(found, 200 if found.status == "ready" else 503)

    def figures(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def openapi(request: Request) -> Response:
        return Response(document, media_type="application/json")

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", one_model),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", figures),
        Route("/openapi.json", openapi),
    ]
    if PAGE.exists():
        page = page_response()
        routes.append(Route("/", lambda request: page))
    return Service(Gate(Router(routes, redirect_slashes=False), settings, metrics), admission, chat)


def _json(reply: pydantic.BaseModel, status: int = 200) -> JSONResponse:
    return JSONResponse(reply.model_dump(), status)
