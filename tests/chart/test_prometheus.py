"""Prometheus' own checker takes the bundled configuration, and the alerts fire when they should and only then."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.chart.variants import CHART, DEMO, VARIANTS

pytestmark = pytest.mark.cluster


def _config(manifests: list[dict[str, Any]]) -> dict[str, str]:
    (config,) = [m for m in manifests if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "dreambooth-prometheus"]
    return config["data"]


def _promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    assert program, "promtool is missing: `make up` installs Debian's package prometheus"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("extra", [(), ("--set-json", 'prometheus.extraScrapeConfigs=[{"job_name":"x"}]')])
def test_the_configuration_is_valid(render, tmp_path, extra):
    data = _config(render(*DEMO, *extra))
    (tmp_path / "alerts.yaml").write_text(data["alerts.yaml"])
    config = data["prometheus.yml"].replace("/etc/prometheus", str(tmp_path))
    (tmp_path / "prometheus.yml").write_text(config)
    _promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_everything_of_ours_is_scraped(render):
    config = yaml.safe_load(_config(render(*DEMO))["prometheus.yml"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    operator = "dreambooth-operator.dreambooth-system.svc:9401"
    replicas = "dreambooth-operator-replicas.dreambooth-system.svc"
    assert jobs["dreambooth-operator"]["dns_sd_configs"] == [{"names": [replicas], "type": "A", "port": 9401}]
    assert jobs["dreambooth-pods"]["http_sd_configs"][0]["url"] == f"http://{operator}/targets"
    gateways = "dreambooth-gateway-replicas.dreambooth-system.svc"
    (found,) = jobs["dreambooth-gateway"]["dns_sd_configs"]
    assert (found["names"], found["port"], found["refresh_interval"]) == ([gateways], 9403, "5s")
    assert config["global"]["scrape_interval"] == "5s"


def test_a_changed_configuration_restarts_prometheus(render):
    def checksum(*flags):
        (deployment,) = [
            m for m in render(*DEMO, *flags) if m["kind"] == "Deployment" and "prometheus" in m["metadata"]["name"]
        ]
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum() != checksum("--set", "prometheus.scrapeInterval=7s")


def test_the_prometheus_operator_gets_the_same_alerts(render):
    manifests = render(*VARIANTS["monitoring"])
    (rule,) = [m for m in manifests if m["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load(_config(manifests)["alerts.yaml"])


# Alert → (series with their values, minute by minute; when; whether it fires).
ALERTS = {
    "DreamBoothOperatorDown": [({}, "10m", True), ({"dreambooth_jobs{phase='Failed'}": "0x20"}, "10m", False)],
    "DreamBoothNoLeader": [
        ({"dreambooth_operator_leader{instance='a'}": "0x20", "dreambooth_operator_leader{instance='b'}": "0x20"},
         "10m", True),
        ({"dreambooth_operator_leader{instance='a'}": "0x20", "dreambooth_operator_leader{instance='b'}": "1x20"},
         "10m", False),
    ],
    "DreamBoothReconcileErrors": [
        ({"dreambooth_reconcile_errors_total{kind='DreamBoothJob',reason='Forbidden'}": "0+30x40"}, "30m", True),
        ({"dreambooth_reconcile_errors_total{kind='DreamBoothJob',reason='Conflict'}": "0+1x40"}, "30m", False),
    ],
    "DreamBoothJobFailed": [
        ({"dreambooth_jobs{phase='Failed'}": "1x9 2x9"}, "12m", True),
        ({"dreambooth_jobs{phase='Failed'}": "2x20", "dreambooth_jobs{phase='Succeeded'}": "1+1x20"}, "12m", False),
    ],
    "DreamBoothTrainingStalled": [
        ({"dreambooth_training_step": "50x60", "dreambooth_training_steps": "600x60"}, "45m", True),
        ({"dreambooth_training_step": "600x60", "dreambooth_training_steps": "600x60"}, "45m", False),
        ({"dreambooth_training_step": "0+5x60", "dreambooth_training_steps": "600x60"}, "45m", False),
    ],
    "DreamBoothCheckpointOld": [
        ({"dreambooth_training_checkpoint_age_seconds": "0+60x90", "dreambooth_training_step": "5x90",
          "dreambooth_training_steps": "9x90"}, "80m", True),
        ({"dreambooth_training_checkpoint_age_seconds": "0+60x90", "dreambooth_training_step": "9x90",
          "dreambooth_training_steps": "9x90"}, "80m", False),
    ],
    "DreamBoothModelDegraded": [({"dreambooth_models{phase='Degraded'}": "1x30"}, "15m", True)],
    "DreamBoothPoolDegraded": [
        ({"dreambooth_pools{phase='Degraded'}": "1x30"}, "15m", True),
        ({"dreambooth_pools{phase='Degraded'}": "1x5 0x30", "dreambooth_pools{phase='Idle'}": "1x30"}, "15m", False),
    ],
    "DreamBoothEndpointErrors": [
        ({"dreambooth_requests_total{model='a',code='200'}": "0+90x30",
          "dreambooth_requests_total{model='a',code='503'}": "0+10x30"}, "20m", True),
        ({"dreambooth_requests_total{model='a',code='200'}": "0+90x30",
          "dreambooth_requests_total{model='a',code='400'}": "0+90x30"}, "20m", False),
    ],
    "DreamBoothEndpointSaturated": [
        ({"dreambooth_queue_duration_seconds_bucket{model='a',le='30'}": "0x30",
          "dreambooth_queue_duration_seconds_bucket{model='a',le='60'}": "0+9x30",
          "dreambooth_queue_duration_seconds_bucket{model='a',le='+Inf'}": "0+9x30"}, "25m", True),
    ],
    "DreamBoothGatewayDown": [
        ({"dreambooth_gateway_in_flight_requests{model='a'}": "0x5 stale", "dreambooth_models{phase='Ready'}": "1x30"},
         "20m", True),
        ({"dreambooth_gateway_in_flight_requests{model='a'}": "0x30", "dreambooth_models{phase='Ready'}": "1x30"},
         "20m", False),
        ({"dreambooth_models{phase='Ready'}": "1x30"}, "20m", False),
        ({"dreambooth_gateway_in_flight_requests{model='a'}": "0x5 stale", "dreambooth_models{phase='Ready'}": "0x30"},
         "20m", False),
    ],
    "DreamBoothGatewayErrors": [
        ({"dreambooth_gateway_requests_total{model='a',code='200'}": "0+90x30",
          "dreambooth_gateway_requests_total{model='a',code='502'}": "0+10x30"}, "20m", True),
        ({"dreambooth_gateway_requests_total{model='a',code='200'}": "0+90x30",
          "dreambooth_gateway_requests_total{model='a',code='503'}": "0+90x30"}, "20m", False),
    ],
    "DreamBoothRequestsShed": [
        ({"dreambooth_gateway_requests_total{model='a',code='200'}": "0+80x40",
          "dreambooth_gateway_requests_total{model='a',code='429'}": "0+20x40"}, "30m", True),
        ({"dreambooth_gateway_requests_total{model='a',code='200'}": "0+80x40",
          "dreambooth_gateway_requests_total{model='a',code='400'}": "0+20x40"}, "30m", False),
    ],
    "DreamBoothRequestsHeld": [
        ({"dreambooth_gateway_hold_duration_seconds_bucket{model='a',le='30'}": "0x30",
          "dreambooth_gateway_hold_duration_seconds_bucket{model='a',le='60'}": "0+9x30",
          "dreambooth_gateway_hold_duration_seconds_bucket{model='a',le='+Inf'}": "0+9x30"}, "25m", True),
        ({"dreambooth_gateway_hold_duration_seconds_bucket{model='a',le='30'}": "0+9x30",
          "dreambooth_gateway_hold_duration_seconds_bucket{model='a',le='+Inf'}": "0+9x30"}, "25m", False),
    ],
    "DreamBoothReplicasLost": [
        ({"dreambooth_gateway_requests_total{model='a',code='200'}": "0+10x40",
          "dreambooth_gateway_retries_total{model='a'}": "0+5x40"}, "30m", True),
        ({"dreambooth_gateway_requests_total{model='a',code='200'}": "0+10x40",
          "dreambooth_gateway_retries_total{model='a'}": "0+1x40"}, "30m", False),
    ],
    "DreamBoothPoolStuck": [
        ({"dreambooth_gateway_pool_in_flight_requests{pool='p'}": "3x40",
          "dreambooth_images_total{pool='p',model='a'}": "7x40"}, "30m", True),
        ({"dreambooth_gateway_pool_in_flight_requests{pool='p'}": "3x40",
          "dreambooth_images_total{pool='p',model='a'}": "0+1x40"}, "30m", False),
        ({"dreambooth_gateway_pool_in_flight_requests{pool='p'}": "0x40"}, "30m", False),
    ],
    "DreamBoothCanaryErrors": [
        ({"dreambooth_requests_total{component='canary',model='a',code='200'}": "0+90x30",
          "dreambooth_requests_total{component='canary',model='a',code='500'}": "0+10x30"}, "20m", True),
        ({"dreambooth_requests_total{component='server',model='a',code='500'}": "0+10x30"}, "20m", False),
    ],
    "DreamBoothCanaryRolledBack": [
        ({"dreambooth_canaries_rolled_back_total{reason='errors'}": "0x9 1x20"}, "12m", True),
        ({"dreambooth_canaries_rolled_back_total{reason='errors'}": "3x40"}, "12m", False),
    ],
}  # fmt: skip


def test_every_alert_has_a_case():
    (group,) = yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]
    assert {rule["alert"] for rule in group["rules"]} == set(ALERTS)
    for rule in group["rules"]:
        assert {"summary", "description"} <= set(rule["annotations"])


@pytest.mark.parametrize(("alert", "series", "time", "fires"), [(a, *c) for a, cases in ALERTS.items() for c in cases])
def test_alerts_fire_when_they_should(tmp_path, alert, series, time, fires):
    """Asked through the series ALERTS that Prometheus itself keeps, so that no text need be repeated here."""
    expression = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": time, "exp_samples": [{"labels": "{}", "value": int(fires)}]}
        ],
    }
    shutil.copy(CHART / "files/alerts.yaml", tmp_path)
    case = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    _promtool("test", "rules", str(tmp_path / "case.yaml"))


def test_dashboard_and_alerts_ask_for_series_that_the_platform_has():
    """The names are spelled in three packages that this test does not import; their sources must say them."""
    root = CHART.parents[1]
    told = "".join(
        path.read_text() for part in ("operator", "trainer", "server") for path in (root / part).rglob("*.py")
    )
    told = told.replace('f"dreambooth_training_{name}"', "").replace('f"{_PREFIX}', '"dreambooth_gateway_')
    gauges = re.findall(r'gauge\("(\w+)"', told)
    asked = (CHART / "files/alerts.yaml").read_text() + (CHART / "files/dashboard.json").read_text()
    for name in set(re.findall(r"\bdreambooth_(?!job\b)\w+", asked)):
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        known = f'"{name}"' in told or f'"{base}"' in told or base.removeprefix("dreambooth_training_") in gauges
        assert known, f"nobody exposes {name}"


def test_the_dashboard_is_one_that_grafana_reads(render):
    (config,) = [m for m in render(*VARIANTS["monitoring"]) if m["metadata"]["name"] == "dreambooth-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["dreambooth.json"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
