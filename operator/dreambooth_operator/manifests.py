"""What the manifests of both kinds share: identity, labels, owner. Pure."""

from dreambooth_api import names
from dreambooth_operator.views import Body


def labels(kind_label: str, owner: str, component: str | None = None) -> dict[str, str]:
    """Labels by which a child is found: whose it is and what it does."""
    found = {names.LABEL_MANAGED_BY: names.MANAGER, kind_label: owner}
    return found | ({names.LABEL_COMPONENT: component} if component else {})


def owner_reference(kind: str, body: Body) -> Body:
    """The reference by which the garbage collector deletes a child after its owner."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "name": body["metadata"]["name"],
        "uid": body["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child(api_version: str, kind: str, name: str, owner_kind: str, owner: Body, own_labels: dict[str, str]) -> Body:
    """A manifest of a child without its content."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": own_labels,
            "ownerReferences": [owner_reference(owner_kind, owner)],
        },
    }
