"""The HTTP application: everything but the drawing of pictures, which is `generations`."""

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dreambooth_server import adapters, generations, page
from dreambooth_server.catalog import entries, unknown_model
from dreambooth_server.errors import install_error_handlers
from dreambooth_server.memory import memory_in_use
from dreambooth_server.metrics import Metrics
from dreambooth_server.middleware import BodyLimit, Measured
from dreambooth_server.protocol import ERRORS, ModelEntry, ModelList
from dreambooth_server.service import Service, State

router = APIRouter()


def create_app(service: Service) -> FastAPI:
    """The application over `service`."""
    # No /docs: FastAPI's page loads its scripts from elsewhere.
    app = FastAPI(title="DreamBooth", docs_url=None, redoc_url=None, strict_content_type=False)
    app.state.service = service
    for part in (router, generations.router, adapters.router, page.router):
        app.include_router(part)
    install_error_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(Measured, metrics=service.metrics)
    return app


@router.get("/v1/models", responses=ERRORS)
async def models(request: Request) -> ModelList:
    """What can be drawn; the first is the default."""
    service: Service = request.app.state.service
    return ModelList(data=entries(service.engine, service.base_digest))


@router.get("/v1/models/{model}", responses=ERRORS)
async def model(model: str, request: Request) -> ModelEntry:
    """One model."""
    service: Service = request.app.state.service
    listed = {entry.id: entry for entry in reversed(entries(service.engine, service.base_digest))}
    if model not in listed:
        raise unknown_model(listed)
    return listed[model]


@router.get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz", include_in_schema=False)
async def readyz(request: Request) -> JSONResponse:
    """Whether requests should come here: weights loaded, verified, and a first picture drawn."""
    state = request.app.state.service.state
    return JSONResponse({"status": state}, 200 if state is State.READY else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    found: Metrics = request.app.state.service.metrics
    found.device_memory.set(memory_in_use())
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)
