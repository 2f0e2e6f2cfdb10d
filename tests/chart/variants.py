"""The sets of values that the chart's tests render: name → flags."""

from pathlib import Path

CHART = Path(__file__).parents[2] / "charts/dreambooth"
NAMESPACE = "dreambooth-system"

DEMO = ("--values", str(CHART / "values-demo.yaml"))
MONITORING = (
    "--api-versions", "monitoring.coreos.com/v1",
    "--set", "monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true,"
    "monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true",
)  # fmt: skip
SERVERS = ("--set", "minio.enabled=true,mlflow.enabled=true,prometheus.enabled=true")
OWN_STORE = (
    "--set", "store.secret.create=true,store.namespaces={a,b},store.endpoint=https://s3.example.com,"
    "store.accessKey=key,store.secretKey=secret,store.mlflowUri=https://mlflow.example.com",
)  # fmt: skip

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "demo": DEMO,
    "persistent servers": SERVERS,
    "own store": OWN_STORE,
    "node's cache": (*OWN_STORE, "--set", "cache.enabled=true,cache.nodePath=/var/cache/dreambooth"),
    "network's cache": (*OWN_STORE, "--set", "cache.enabled=true,cache.storageClass=nfs"),
    "namespaced": ("--set", "operator.namespaces={a,b}"),
    "monitoring": (*DEMO, *MONITORING),
    "everything": (
        *DEMO, *MONITORING, "--set", "networkPolicy.enabled=true,podDisruptionBudget.enabled=true,"
        "metricsApi.enabled=true,"
        "operator.namespaces={demo},images.pullSecrets={registry},images.registry=registry.example.com/mirror,"
        "operator.priorityClassName=system-cluster-critical,operator.env.A=b",
    ),
    "no gateway": (*DEMO, "--set", "gateway.enabled=false,metricsApi.enabled=true,networkPolicy.enabled=true"),
    "no cluster-wide parts": (
        "--set", "crds.install=false,rbac.create=false,rbac.aggregate=false,serviceAccount.create=false",
    ),
}  # fmt: skip
