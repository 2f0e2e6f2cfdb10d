"""A pool's Deployment. Pure."""

from dreambooth_api import names
from dreambooth_api.pool import ServingPoolSpec
from dreambooth_operator import manifests, manifests_serving, pods
from dreambooth_operator.drift import stamped
from dreambooth_operator.manifests_serving import POOL, child
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Body


def deployment(body: Body, spec: ServingPoolSpec, settings: Settings) -> Body:
    """Replicas that hold the base, and draw whatever subject of it a request names."""
    name, base = body["metadata"]["name"], spec.base_model
    overrides = pods.with_base(spec.template, base.uri)
    secret = base.secret_ref.name if base.secret_ref else None
    cache = manifests_serving.cache_claim(body, spec, settings)
    scaling = spec.model_copy(update={"template": overrides})
    template = pods.pod_template(
        manifests_serving.container(_arguments(spec), scaling, secret, cache, settings),
        overrides,
        labels=manifests.labels(names.LABEL_POOL, name, names.COMPONENT_SERVER),
        annotations=pods.scrape_annotations(names.SERVER_PORT),
        volumes=manifests_serving.volumes(cache),
        grace_seconds=manifests_serving.GRACE_SECONDS,
    )
    return stamped({
        **child(POOL, "apps/v1", "Deployment", body),
        "spec": manifests_serving.deployment_spec(manifests_serving.selector(POOL, name), template),
    })  # fmt: skip


def _arguments(spec: ServingPoolSpec) -> list[str]:
    base, adapters = spec.base_model, spec.adapters
    revision = [f"--base-revision={base.revision}"] if base.revision else []
    return [
        "--pool", "--base", base.uri, *revision, "--max-rank", str(adapters.max_rank),
        "--adapters-on-device", str(adapters.on_device), "--adapters-in-memory", str(adapters.in_memory),
    ]  # fmt: skip
