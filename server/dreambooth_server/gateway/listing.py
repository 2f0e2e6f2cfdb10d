"""What can be asked for: `GET …/v1/models`, at a subject's URL and at the gateway's own."""

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from dreambooth_api.adapters import AdapterPhase, AdapterRequest, AdapterState
from dreambooth_api.routes import Route, Target
from dreambooth_api.serving import ServingMode
from dreambooth_server.errors import ApiError
from dreambooth_server.gateway.clients import unless_gone
from dreambooth_server.gateway.dispatch import Ask
from dreambooth_server.gateway.drawing import RESPONSES
from dreambooth_server.gateway.gateway import Card, Gateway
from dreambooth_server.gateway.relay import Job
from dreambooth_server.gateway.replica import Answer, Wanted
from dreambooth_server.gateway.table import Subject, pin
from dreambooth_server.protocol import ModelEntry, ModelList
from dreambooth_server.settings import BASE_MODEL

_MODELS, _ADAPTERS = "/v1/models", "/adapters"
_FETCHING_SECONDS, _LOOK_SECONDS = 30.0, 0.25

router = APIRouter()


class SubjectEntry(BaseModel):
    """One entry of the gateway's own list. Its details are at the subject's URL, which wakes nobody for the list."""

    id: str = Field(description="`namespace/name`: what `model` calls it.")
    object: str = "model"
    created: int = Field(0, description="Not known here.")
    owned_by: str = Field(description="Its namespace.")


class SubjectList(BaseModel):
    """The gateway's own `GET /v1/models`."""

    object: str = "list"
    data: list[SubjectEntry]


@router.get(_MODELS, responses=RESPONSES)
async def subjects(request: Request) -> SubjectList:
    """The subjects that are open, and those that the request's API key opens."""
    gateway: Gateway = request.app.state.gateway
    key = request.headers.get("Authorization")
    found = [route for route in gateway.table.routes.values() if gateway.admission.opens(route, key)]
    return SubjectList(data=[_listed(route) for route in found])


@router.get(_MODELS + "/{namespace}/{name}", responses=RESPONSES)
async def subject(namespace: str, name: str, request: Request) -> SubjectEntry:
    """One subject."""
    gateway: Gateway = request.app.state.gateway
    route, _ = gateway.admission.admit((namespace, name), request.headers.get("Authorization"))
    return _listed(route)


@router.get("/{namespace}/{name}" + _MODELS, responses=RESPONSES)
async def models(namespace: str, name: str, request: Request) -> ModelList:
    """What can be drawn at this URL: the subject, each of its revisions while there are several, and the base."""
    return await _models((namespace, name), request)


@router.get("/{namespace}/{name}" + _MODELS + "/{model}", responses=RESPONSES)
async def model(namespace: str, name: str, model: str, request: Request) -> ModelEntry:
    """One of them."""
    listed = await _models((namespace, name), request)
    if found := [entry for entry in listed.data if entry.id == model]:
        return found[0]
    known = ", ".join(entry.id for entry in listed.data)
    raise ApiError(404, f"The model does not exist here; there are: {known}.", "model_not_found", "model")


def _listed(route: Route) -> SubjectEntry:
    return SubjectEntry(id=f"{route.namespace}/{route.name}", owned_by=route.namespace)


async def _models(asked: Subject, request: Request) -> ModelList:
    gateway: Gateway = request.app.state.gateway
    route, _ = gateway.admission.admit(asked, request.headers.get("Authorization"))
    targets = sorted(gateway.table.targets(route, None), key=lambda target: -target.weight)
    # Another revision is listed where a replica draws it.
    awake = [target for target in targets[1:] if gateway.table.replicas(target.backend)]
    shown = (targets[0], *awake)
    cards = [await unless_gone(request, _cards(gateway, asked, route, target)) for target in shown]
    own, base = cards[0]
    revisions = [_revision(target, card) for target, (card, _) in zip(shown, cards, strict=True)] if awake else []
    return ModelList(data=[ModelEntry.model_validate(card) for card in (own, *revisions, base) if card is not None])


def _revision(target: Target, card: Card) -> Card:
    return {**card, "id": f"{card['id']}@{pin(target)}"}


async def _cards(gateway: Gateway, asked: Subject, route: Route, target: Target) -> tuple[Card, Card | None]:
    """The entries of one artifact and of its base, as a replica has them; one that sleeps is not woken for them. Raises
    ApiError."""
    key = (asked, target.digest)
    if key not in gateway.cards:
        if not gateway.table.replicas(target.backend):
            return _unseen(asked, route.name), _unseen(asked, BASE_MODEL)
        if route.mode is ServingMode.SHARED:
            await _have_adapter(gateway, asked, target)
        listed = json.loads((await _ask(gateway, asked, target, "GET", _MODELS, None)).body)["data"]
        gateway.cards[key] = _chosen(listed, route.name, target.digest)
    return gateway.cards[key]


def _unseen(asked: Subject, name: str) -> Card:
    """What can be said of a model without its replica."""
    return {"id": name, "created": 0, "owned_by": asked[0], "dreambooth": None}


def _chosen(listed: Sequence[Card], name: str, digest: str) -> tuple[Card, Card | None]:
    """The artifact's entry under the subject's name, and the base's. A pool lists other subjects too."""
    base = next((card for card in listed if card["id"] == BASE_MODEL), None)
    own = [card for card in listed if card["dreambooth"]["digest"] == digest and card is not base]
    if not own:
        raise ApiError(503, "The replica does not list the model yet.", "model_not_ready", headers={"Retry-After": "2"})
    return {**own[0], "id": name}, base


async def _have_adapter(gateway: Gateway, asked: Subject, target: Target) -> None:
    """Until a pool's replica has the artifact at hand. Raises ApiError."""
    body = AdapterRequest(name=asked[1], uri=target.uri, digest=target.digest).model_dump_json(by_alias=True)
    for _ in range(int(_FETCHING_SECONDS / _LOOK_SECONDS)):
        answer = await _ask(gateway, asked, target, "POST", _ADAPTERS, body.encode())
        state = AdapterState.model_validate_json(answer.body)
        if state.phase is AdapterPhase.READY:
            return
        if state.phase is AdapterPhase.FAILED:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    message = state.message or "The model is still being fetched."
    raise ApiError(503, message, "model_not_ready", headers={"Retry-After": "5"})


async def _ask(gateway: Gateway, asked: Subject, target: Target, method: str, path: str, body: bytes | None) -> Answer:
    """A replica's answer about `target`. Raises ApiError for any that is no success."""
    headers = {"Content-Type": "application/json"} if body else {}
    job = Job(Ask(asked, pin(target)), Wanted(method, path, body, headers), counted=False)
    async with gateway.relay.answering(job) as answer:
        if answer.status != HTTPStatus.OK:
            message = f"The replica says nothing of the model: status {answer.status}."
            raise ApiError(502, message, "replica_failed")
        return answer
