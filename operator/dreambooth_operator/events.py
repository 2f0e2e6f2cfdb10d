"""Events as Kubernetes keeps them. Pure."""

import hashlib

from dreambooth_api import names
from dreambooth_operator import clock
from dreambooth_operator.views import Told, View

MAX_MESSAGE = 1024


def event(kind: str, view: View, told: Told) -> dict:
    """The event. Its name follows from its content: told again after a crash, it is the same event. Kubernetes keeps
    whole seconds of an event; within one, kubectl shows events by their names, which begin with their place."""
    content = "\n".join((view.uid, told.reason, told.message, told.occasion))
    suffix = hashlib.sha256(content.encode()).hexdigest()[:16]
    moment = clock.text(view.now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{view.name}.{told.place:02}-{suffix}", "namespace": view.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "name": view.name,
            "namespace": view.namespace,
            "uid": view.uid,
        },
        "type": told.type,
        "reason": told.reason,
        "message": told.message[:MAX_MESSAGE],
        "source": {"component": names.MANAGER},
        "reportingComponent": names.MANAGER,
        "reportingInstance": "",
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
