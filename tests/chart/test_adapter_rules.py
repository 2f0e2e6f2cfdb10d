"""The external metric: what an autoscaler gets for a model or a pool, by Prometheus' own arithmetic."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.variants import CHART

pytestmark = pytest.mark.cluster
# Two gateways; a model and a pool of one name, a model that nobody asks for, and another namespace's model.
SERIES = {
    "dreambooth_gateway_in_flight_requests{instance='1',namespace='team',model='robot'}": 7,
    "dreambooth_gateway_in_flight_requests{instance='2',namespace='team',model='robot'}": 4,
    "dreambooth_gateway_in_flight_requests{instance='1',namespace='team',model='idle'}": 0,
    "dreambooth_gateway_in_flight_requests{instance='1',namespace='other',model='robot'}": 100,
    "dreambooth_gateway_pool_in_flight_requests{instance='1',namespace='team',pool='robot'}": 9,
    "dreambooth_gateway_pool_in_flight_requests{instance='2',namespace='team',pool='robot'}": 1,
}


@pytest.mark.parametrize(
    ("selector", "namespace", "value"),
    [
        ("model='robot'", "team", 11),
        ("model='idle'", "team", 0),
        ("model='robot'", "other", 100),
        ("pool='robot'", "team", 10),
        ("model='none'", "team", None),
    ],
)
def test_requests_in_flight_are_those_of_all_gateways(tmp_path: Path, selector, namespace, value):
    (rule,) = yaml.safe_load((CHART / "files/adapter-rules.yaml").read_text())["externalRules"]
    assert rule["name"] == {"as": "dreambooth_in_flight_requests"}
    assert rule["resources"] == {"overrides": {"namespace": {"resource": "namespace"}}}
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", f"{selector},namespace='{namespace}'")
    expected = [] if value is None else [{"labels": "{}", "value": value}]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": str(number)} for name, number in SERIES.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "0m", "exp_samples": expected}],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    program = shutil.which("promtool")
    assert program, "promtool is missing: `make up` installs Debian's package prometheus"
    command = [program, "test", "rules", str(tmp_path / "case.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
