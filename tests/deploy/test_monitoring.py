"""What monitors are given in deploy/monitoring: rules that Prometheus takes, and names that a node serves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.compose.stack import DEPLOY
from tests.e2e.network import in_a_thread
from tests.node.monitoring.test_metrics import METRICS, read

MONITORING = DEPLOY / "monitoring"
ALERTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")

# What a rule is tried on, by its name: a series, and whether it fires at the end.
FIRING = {
    "ComityNodeAway": 'up{job="comity"}',
    "ComitySessionStopped": 'comity_sessions{state="stopped"}',
    "ComitySessionFailed": 'comity_sessions{state="failed"}',
    "ComityWaitsForPeople": 'comity_sessions_waiting{reason="approval"}',
    "ComityPeerAway": 'comity_sessions_waiting{reason="peer-away"}',
    "ComityQuotaNearlyFull": "comity_disk_free_bytes",
    "ComityPrivacyBudgetNearlySpent": "comity_privacy_epsilon_left",
    "ComityCertificateExpires": 'comity_certificate_days_left{whose="own",party="clinic"}',
}
VALUES = {
    "ComitySessionStopped": "1x90",
    "ComitySessionFailed": "0x80 1x10",
    "ComityWaitsForPeople": "1x90",
    "ComityPeerAway": "1x90",
    "ComityPrivacyBudgetNearlySpent": "0.5x90",
    "ComityCertificateExpires": "3x90",
}
BESIDE = {"ComityPrivacyBudgetNearlySpent": {"series": "comity_privacy_epsilon_limit", "values": "8x90"}}


def promtool(*arguments: str, cwd: Path = MONITORING) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_them() -> None:
    promtool("check", "rules", "alerts.yaml")
    promtool("check", "config", "--syntax-only", "prometheus.yaml")


@needs_promtool
def test_each_rule_fires_when_it_should(tmp_path: Path) -> None:
    assert {rule["alert"] for rule in RULES} == set(FIRING)
    tests = []
    for rule in RULES:
        name = rule["alert"]
        series = [{"series": FIRING[name], "values": VALUES.get(name, "0x90")}]
        series += [BESIDE[name]] if name in BESIDE else []
        for is_on in (True, False):
            inputs = series if is_on else []
            expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
            expected = [{"labels": "{}", "value": int(is_on)}]
            tests.append(
                {
                    "interval": "1m",
                    "input_series": inputs,
                    "promql_expr_test": [{"expr": expression, "eval_time": "85m", "exp_samples": expected}],
                }
            )
    file = {"rule_files": [str(MONITORING / "alerts.yaml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(file))
    promtool("test", "rules", "tests.yaml", cwd=tmp_path)


def test_each_says_what_to_do() -> None:
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description"}


def test_what_they_ask_for_is_served() -> None:
    asked = {expression for rule in RULES for expression in [rule["expr"]]}
    asked |= {target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    asked |= {each["query"]["query"] for each in DASHBOARD["templating"]["list"] if isinstance(each["query"], dict)}
    wanted = {name for expression in asked for name in re.findall(r"comity_\w+", expression)}
    values = {"party": "clinic", "insecure": True, "metrics": METRICS}
    values["policy"] = {"max_epsilon": 8.0, "max_state_bytes": 1_000_000}
    with TemporaryDirectory(prefix="e2e-") as name, in_a_thread("analyst", values | {"state_dir": Path(name)}) as node:
        families = list(text_string_to_metric_families(read(node.status().metrics)))
    served = {f"{each.name}{'_total' if each.type == 'counter' else ''}" for each in families}
    served |= {f"{each.name}_{suffix}" for each in families for suffix in ("bucket", "count", "info")}
    assert wanted - served == set()


def test_a_panel_says_what_it_shows_in_which_unit() -> None:
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
