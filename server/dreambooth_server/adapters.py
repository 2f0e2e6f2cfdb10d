"""`POST /adapters`: the operator's way to have a subject fetched and verified before anybody asks for it."""

from fastapi import APIRouter, Request

from dreambooth_api.adapters import AdapterRequest, AdapterState
from dreambooth_server.errors import ApiError
from dreambooth_server.service import Service

router = APIRouter(include_in_schema=False)


@router.post("/adapters")
async def ask(body: AdapterRequest, request: Request) -> AdapterState:
    """How far this replica is with a subject; answers at once."""
    service: Service = request.app.state.service
    if service.library is None:
        raise ApiError(404, "This replica is no pool: its subjects are fixed.", "not_found")
    return service.library.state(body)
