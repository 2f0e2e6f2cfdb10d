"""The list of a model's artifacts in its status: which of them has how much of the requests. Pure."""

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelStatus, Revision

MOST = 5


def of(status: PersonalizedModelStatus, digest: str) -> Revision | None:
    """The revision with a digest."""
    return next((revision for revision in status.revisions if revision.digest == digest), None)


def serving(artifact: Artifact, backend: str, ready: bool) -> Revision:
    """A revision that has all of the requests."""
    return Revision(
        digest=artifact.digest, uri=artifact.uri, weight=100, ready=ready, promoted=True, backend=backend
    )  # fmt: skip


def starting(status: PersonalizedModelStatus, artifact: Artifact) -> Revision:
    """A revision that has none of the requests yet."""
    old = of(status, artifact.digest)
    promoted = bool(old and (old.promoted or old.weight == 100))
    return Revision(digest=artifact.digest, uri=artifact.uri, weight=0, ready=False, promoted=promoted)


def listed(status: PersonalizedModelStatus, *live: Revision) -> list[Revision]:
    """`live` ones first, then the earlier ones, which have no requests; what a pool has verified stays so."""
    known = {revision.digest for revision in live}
    past = [revision for revision in status.revisions if revision.digest not in known]
    return [*live, *(_past(revision) for revision in past)][:MOST]


def _past(old: Revision) -> Revision:
    pooled = names.is_pool_backend(old.backend)
    return old.model_copy(
        update={
            "weight": 0,
            "ready": old.ready and pooled,
            "promoted": old.promoted or old.weight == 100,
            "backend": old.backend if pooled else None,
        }
    )
