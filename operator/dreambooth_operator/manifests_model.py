"""A model's children: Deployments and Service. Pure."""

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelSpec
from dreambooth_operator import manifests, manifests_serving, pods
from dreambooth_operator.drift import stamped
from dreambooth_operator.manifests_serving import MODEL, child
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Body


def selector(name: str, component: str = names.COMPONENT_SERVER) -> dict[str, str]:
    """Labels by which the endpoint's pods, or those of its canary, are found."""
    return manifests_serving.selector(MODEL, name, component)


def url(name: str, namespace: str, settings: Settings) -> str:
    """Where OpenAI's clients find the model: at the gateway, or, without one, at its Service inside the cluster."""
    if settings.gateway_url:
        return f"{settings.gateway_url}/{namespace}/{name}/v1"
    return f"http://{names.endpoint(name)}.{namespace}.svc/v1"


def deployment(body: Body, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings) -> Body:
    """The endpoint's pods."""
    name = body["metadata"]["name"]
    template = _template(body, spec, artifact, settings, names.COMPONENT_SERVER)
    return stamped({
        **child(MODEL, "apps/v1", "Deployment", body),
        "spec": manifests_serving.deployment_spec(selector(name), template),
    })  # fmt: skip


def canary(body: Body, spec: PersonalizedModelSpec, artifact: Artifact, replicas: int, settings: Settings) -> Body:
    """The pods of the next artifact: as many as its share of the requests takes, so that it is not judged by being
    overrun. No autoscaler knows them."""
    name = body["metadata"]["name"]
    template = _template(body, spec, artifact, settings, names.COMPONENT_CANARY)
    own = manifests.labels(names.LABEL_MODEL, name, names.COMPONENT_CANARY)
    spec_of = manifests_serving.deployment_spec(selector(name, names.COMPONENT_CANARY), template)
    return stamped({
        **manifests.child("apps/v1", "Deployment", names.canary(name), names.MODEL_KIND, body, own),
        "spec": {**spec_of, "replicas": replicas},
    })  # fmt: skip


def _template(body: Body, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings, component: str) -> Body:
    name = body["metadata"]["name"]
    secret = body["metadata"].get("annotations", {}).get(names.ANNOTATION_BASE_SECRET)
    cache = manifests_serving.cache_claim(body, spec.serving, settings)
    arguments = ["--artifact", artifact.uri, "--digest", artifact.digest, "--name", name]
    return pods.pod_template(
        manifests_serving.container(arguments, spec.serving, secret, cache, settings),
        spec.serving.template,
        labels=manifests.labels(names.LABEL_MODEL, name, component),
        annotations={**pods.scrape_annotations(names.SERVER_PORT), names.ANNOTATION_ARTIFACT: artifact.digest},
        volumes=manifests_serving.volumes(cache),
        grace_seconds=manifests_serving.GRACE_SECONDS,
    )


def service(body: Body) -> Body:
    """The endpoint's stable address."""
    ports = [{"name": "http", "port": names.SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}]
    return stamped({
        **child(MODEL, "v1", "Service", body),
        "spec": {"selector": selector(body["metadata"]["name"]), "ports": ports},
    })  # fmt: skip
