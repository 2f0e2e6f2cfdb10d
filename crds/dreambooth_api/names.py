"""Every name that more than one part spells: groups, labels, keys, paths, ports and the names of children."""

GROUP = "dreambooth.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
JOB_KIND, JOB_PLURAL = "DreamBoothJob", "dreamboothjobs"
MODEL_KIND, MODEL_PLURAL = "PersonalizedModel", "personalizedmodels"
POOL_KIND, POOL_PLURAL = "ServingPool", "servingpools"

MANAGER = "dreambooth-operator"

LABEL_JOB = f"{GROUP}/job"
LABEL_MODEL = f"{GROUP}/model"
LABEL_POOL = f"{GROUP}/pool"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT_PREPARE, COMPONENT_TRAIN, COMPONENT_SERVER = "prepare", "train", "server"
# A server of the artifact that a canary tries: a component of its own, so that the endpoint's Service passes it by.
COMPONENT_CANARY = "canary"

# Read by `dreambooth run` only: "PREFIX=FOLDER": URIs that begin with PREFIX are read from FOLDER, relative to the
# job's file, so that one file serves a cluster and a laptop.
ANNOTATION_LOCAL_MIRROR = f"{GROUP}/local-mirror"
# The digest of what a child was made from, so that an unchanged child is recognised without comparing defaults.
ANNOTATION_SPEC_DIGEST = f"{GROUP}/spec-digest"
# On a job's pods: the whole job, which they read as JOB_FILE.
ANNOTATION_JOB = f"{GROUP}/job.json"
# On an endpoint's pods: the digest of the artifact that they serve.
ANNOTATION_ARTIFACT = f"{GROUP}/artifact"
# On a model that a job published: the Secret whose `token` opens its gated base.
ANNOTATION_BASE_SECRET = f"{GROUP}/base-secret"

# On a Job that the operator suspended: one that somebody else suspended is that one's to resume.
ANNOTATION_SUSPENDED = f"{GROUP}/suspended"
# Kueue's: copied from a job to its Jobs, which Kueue then queues, admits and preempts.
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABELS_FOR_QUEUE = (LABEL_QUEUE, "kueue.x-k8s.io/priority-class", "kueue.x-k8s.io/max-exec-time-seconds")

STORE_SECRET = "dreambooth-store"
STORE_DIR = "/etc/dreambooth/store"
JOB_DIR = "/etc/dreambooth/job"
JOB_KEY = "job.json"
JOB_FILE = f"{JOB_DIR}/{JOB_KEY}"
WORK_DIR = "/work"
# Where servers' downloads outlive their pods: the claim that the chart makes, and where it is mounted.
CACHE_CLAIM = "dreambooth-cache"
CACHE_DIR = "/var/cache/dreambooth"
TOKEN_KEY = "token"
TERMINATION_LOG = "/dev/termination-log"

ENV_STORE_DIR = "DREAMBOOTH_STORE_DIR"
ENV_WORK_DIR = "DREAMBOOTH_WORK_DIR"
ENV_CACHE_DIR = "DREAMBOOTH_CACHE_DIR"
ENV_TERMINATION_LOG = "DREAMBOOTH_TERMINATION_LOG"
ENV_IMAGE = "DREAMBOOTH_TRAINER_IMAGE"

TRAINER_PORT = 9400
SERVER_PORT = 8080
OPERATOR_HEALTH_PORT = 8080
OPERATOR_METRICS_PORT = 9401
OPERATOR_ROUTES_PORT = 9402
GATEWAY_PORT = 8080
GATEWAY_METRICS_PORT = 9403
MASTER_PORT = 29500
SERVICE_PORT = 80

# From the gateway to a replica: which subject a request is for, and where a pool finds it.
HEADER_MODEL, HEADER_ARTIFACT, HEADER_DIGEST = "dreambooth-model", "dreambooth-artifact", "dreambooth-digest"

# The external metric that autoscalers ask for, where there is a metrics API: what gateways have in flight.
METRIC_IN_FLIGHT = "dreambooth_in_flight_requests"

MODEL_CARD = "model.json"
MANIFEST = "MANIFEST.json"
# Of an artifact with a learned token: its rows, as a textual inversion of diffusers.
TOKEN_WEIGHTS = "learned_embeds.safetensors"
# What `prepare` found, for `train` to compare with: dataset and base digests, the base's scores.
PREPARED = "prepared.json"
# Where the pods that share the drawing of class images say that they are done.
SHARDS = "shards"
# The scores of a job's checkpoints, by step.
SCORES = "scores.json"

# A child's name may have 63 characters; the longest suffix takes 9, and an Indexed Job's pod "-<index>-xxxxx" more.
MAX_NAME_LENGTH = 46
# Children take the name over, and a Service's must begin with a letter and have no dots.
NAME_PATTERN = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"
# Objects of others that a resource names: what Kubernetes lets most objects be called, and nothing with a slash in it.
OBJECT_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"


def prepare_job(job: str) -> str:
    """The Job that checks the input and draws the class images."""
    return f"{job}-prepare"


def training(job: str) -> str:
    """The Indexed training Job and the headless Service of its pods, which share a name."""
    return f"{job}-train"


def endpoint(model: str) -> str:
    """The Deployment, Service and HorizontalPodAutoscaler of a model."""
    return f"{model}-endpoint"


def canary(model: str) -> str:
    """The Deployment of a model's next artifact, while a part of the requests tries it."""
    return f"{model}-canary"


def pool(name: str) -> str:
    """The Deployment and HorizontalPodAutoscaler of a pool."""
    return f"{name}-pool"


def model_backend(namespace: str, model: str) -> str:
    """The key of a model's own replicas in `Routes.backends`."""
    return f"model/{namespace}/{model}"


def canary_backend(namespace: str, model: str) -> str:
    """The key of the replicas of a model's canary."""
    return f"canary/{namespace}/{model}"


POOL_BACKEND = "pool/"


def pool_backend(namespace: str, name: str) -> str:
    """The key of a pool's replicas."""
    return f"{POOL_BACKEND}{namespace}/{name}"


def is_pool_backend(backend: str | None) -> bool:
    """Whether a key is of a pool's replicas."""
    return backend is not None and backend.startswith(POOL_BACKEND)


def master_address(job: str, namespace: str) -> str:
    """Where rank 0 is found: the first pod of the Indexed Job, through the headless Service."""
    return f"{training(job)}-0.{training(job)}.{namespace}.svc"


def learned_token(identifier: str) -> str:
    """The token that a learned embedding has in tokenizers: no word of any prompt."""
    return f"<{identifier}>"
