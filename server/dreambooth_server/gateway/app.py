"""The HTTP application: what is not pictures (`drawing`) or lists (`listing`)."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from dreambooth_server import page
from dreambooth_server.errors import ApiError, install_error_handlers
from dreambooth_server.gateway import drawing, listing
from dreambooth_server.gateway.gateway import Gateway
from dreambooth_server.gateway.middleware import Audited, Farewell
from dreambooth_server.middleware import BodyLimit

router = APIRouter(include_in_schema=False)
_TO_ROOT = "../../"


def create_app(gateway: Gateway) -> FastAPI:
    """The application over `gateway`, which is at work while the application is."""

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with gateway.open():
            yield

    # No /docs: FastAPI's page loads its scripts from elsewhere.
    app = FastAPI(title="DreamBooth", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=life)
    app.state.gateway = gateway
    # Last: what begins with a namespace and a name can be anything.
    for part in (drawing.router, listing.router, router):
        app.include_router(part)
    install_error_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(Audited, metrics=gateway.metrics, table=gateway.table, log_prompts=gateway.settings.log_prompts)
    app.add_middleware(Farewell, draining=lambda: gateway.draining)
    return app


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Whether requests should come here: the routes are known, and the gateway is not about to end."""
    gateway: Gateway = request.app.state.gateway
    status = "draining" if gateway.draining else "ready" if gateway.ready else "waiting for the operator"
    return JSONResponse({"status": status}, 200 if gateway.ready else 503)


@router.get("/")
async def first(request: Request) -> Response:
    """The playground of the first open subject; it has the others too."""
    gateway: Gateway = request.app.state.gateway
    key = request.headers.get("Authorization")
    for (namespace, name), route in gateway.table.routes.items():
        if gateway.admission.opens(route, key):
            return RedirectResponse(f"{namespace}/{name}/")
    raise ApiError(404, "No subject is open to everybody: use /namespace/name/.", "not_found")


@router.get("/{namespace}/{name}")
async def without_slash(namespace: str, name: str, request: Request) -> Response:
    """The playground's own URL ends with a slash: its parts are found relative to it."""
    request.app.state.gateway.table.route((namespace, name))
    return RedirectResponse(f"{name}/")


@router.get("/{namespace}/{name}/")
async def playground(namespace: str, name: str, request: Request) -> Response:
    """The page; it asks for a key itself where one is needed."""
    request.app.state.gateway.table.route((namespace, name))
    return page.index_page(_TO_ROOT)


@router.get("/{namespace}/{name}/playground/{part}")
async def part(namespace: str, name: str, part: str) -> Response:
    """Its looks and its behaviour."""
    return page.part_of_page(part)
