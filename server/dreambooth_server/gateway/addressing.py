"""Which subject a request means: by its path, by OpenAI's `model`, or by both."""

from dataclasses import dataclass

from dreambooth_server.errors import ApiError
from dreambooth_server.gateway.table import Subject
from dreambooth_server.settings import BASE_MODEL


@dataclass(frozen=True)
class Meant:
    """What a request is for."""

    subject: Subject
    pinned: str | None
    """A revision, as `table.pin` names it; None: whichever has its turn."""
    model: str
    """What the subject's replica calls it."""


def from_path(subject: Subject, model: str | None) -> Meant:
    """What `model` means at the URL of `subject`: nothing, its name, a revision of it, or `base`. Raises ApiError 404.

    The namespace may stand before the name: one client's `model` then serves at both kinds of URL.
    """
    namespace, name = subject
    if model is None or model == BASE_MODEL:
        return Meant(subject, None, model or name)
    called, _, pinned = model.removeprefix(f"{namespace}/").partition("@")
    if called != name:
        message = f"The model does not exist here; there are: {name}, {BASE_MODEL}."
        raise ApiError(404, message, "model_not_found", "model")
    return Meant(subject, pinned or None, name)


def from_model(model: str | None) -> Meant:
    """What `model` means at the gateway's own URL: `namespace/name`, or a revision of it. Raises ApiError 400, 404."""
    if model is None:
        raise ApiError(400, "model: say namespace/name", "missing_required_parameter", "model")
    namespace, slash, called = model.partition("/")
    if not (namespace and slash and called):
        message = f"The model {model!r} does not exist: use namespace/name."
        raise ApiError(404, message, "model_not_found", "model")
    name, _, pinned = called.partition("@")
    return Meant((namespace, name), pinned or None, name)
