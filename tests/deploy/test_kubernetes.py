"""The manifests of deploy/kubernetes: each against the schemas of Kubernetes, and together as Kustomize joins them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from comity.node.config import NodeConfig
from tests.compose.stack import DEPLOY

FOLDER = DEPLOY / "kubernetes"
# What the base is to work with: the oldest that is widely run, and the newest that the schemas know.
VERSIONS = ("1.28.0", kubernetes_validate.latest_version())
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
ROLES = ("provider", "server")
FILES = sorted(each for each in FOLDER.rglob("*.yaml") if each.name != "kustomization.yaml")


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def kustomization(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = documents(folder / "kustomization.yaml")[0]
    return found


def resources(folder: Path) -> list[dict[str, Any]]:
    """What a folder's Kustomization names, folders included."""
    found = []
    for name in kustomization(folder)["resources"]:
        path = folder / name
        found += resources(path) if path.is_dir() else documents(path)
    return found


def of_kind(folder: Path, kind: str) -> dict[str, Any]:
    return next(each for each in resources(folder) if each["kind"] == kind)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_kubernetes_takes_it(path: Path, version: str) -> None:
    for document in documents(path):
        if document["kind"] in CUSTOM:
            assert document["apiVersion"] == "monitoring.coreos.com/v1"
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        elif path.name == "metrics.yaml":
            # A patch, which is not whole.
            assert document["kind"] == "StatefulSet"
        else:
            kubernetes_validate.validate(document, version, strict=True)


def test_every_file_is_named_by_a_kustomization() -> None:
    named = set()
    for file in FOLDER.rglob("kustomization.yaml"):
        found = kustomization(file.parent)
        names = [*found["resources"], *(each["path"] for each in found.get("patches", ()))]
        named |= {(file.parent / name).resolve() for name in names}
    assert {each.resolve() for each in FILES} <= named
    assert all(each.exists() for each in named)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_all_that_its_pod_mounts(role: str) -> None:
    found = kustomization(FOLDER / role)
    assert found["resources"] == ["../base"]
    maps = {each["name"]: each["files"] for each in found["configMapGenerator"]}
    secrets = {each["name"]: each["files"] for each in found["secretGenerator"]}
    pod = of_kind(FOLDER / "base", "StatefulSet")["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        if "configMap" in volume and not volume["configMap"].get("optional"):
            assert volume["configMap"]["name"] in maps
        if "secret" in volume:
            assert volume["secret"]["secretName"] in secrets
    volumes = {each["name"] for each in [*pod["volumes"], *({"name": "state"},)]}
    assert {each["name"] for each in pod["containers"][0]["volumeMounts"]} == volumes
    assert found["images"][0]["name"] == pod["containers"][0]["image"].partition(":")[0]
    config = tomllib.loads((FOLDER / role / "node.toml").read_text())
    parsed = NodeConfig(**config)
    assert parsed.role == role
    mounted = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert parsed.tls is not None
    assert str(parsed.tls.trust) == mounted["trust"]
    assert {parsed.tls.certificate.name, parsed.tls.key.name} == set(secrets["keys"])
    assert str(parsed.tls.key.parent) == mounted["keys"]
    assert parsed.state_dir.is_relative_to(mounted["state"])
    assert f"{mounted['config']}/node.toml" in pod["containers"][0]["args"]
    assert parsed.listen.endswith(":5500")


def test_a_pod_may_do_little() -> None:
    pod = of_kind(FOLDER / "base", "StatefulSet")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    container = pod["containers"][0]["securityContext"]
    assert container["readOnlyRootFilesystem"]
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert not container["allowPrivilegeEscalation"]
    policy = of_kind(FOLDER / "base", "NetworkPolicy")["spec"]
    assert policy["egress"] == []
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_what_belongs_together_is_called_the_same() -> None:
    base = FOLDER / "base"
    spec = of_kind(base, "StatefulSet")["spec"]
    services = {each["metadata"]["name"]: each for each in resources(base) if each["kind"] == "Service"}
    assert spec["serviceName"] in services
    ports = {each["name"] for each in spec["template"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for each in services.values() for port in each["spec"]["ports"]} <= ports
    monitor = documents(FOLDER / "monitoring" / "servicemonitor.yaml")[0]["spec"]
    assert {each["port"] for each in monitor["endpoints"]} <= ports
    labels = {"app.kubernetes.io/name": "comity"}
    assert monitor["selector"]["matchLabels"] == labels == kustomization(base)["labels"][0]["pairs"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == labels


def test_the_rules_are_those_that_prometheus_is_given() -> None:
    rules = documents(FOLDER / "monitoring" / "prometheusrule.yaml")[0]["spec"]
    assert rules == yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())


def test_the_component_turns_metrics_on() -> None:
    patch = documents(FOLDER / "monitoring" / "metrics.yaml")[0]
    variables = {each["name"]: each["value"] for each in patch["spec"]["template"]["spec"]["containers"][0]["env"]}
    keys = {re.sub("^COMITY_NODE_METRICS__", "", name).lower() for name in variables}
    assert keys == {"enabled", "listen", "expose"}
    assert patch["metadata"]["name"] == of_kind(FOLDER / "base", "StatefulSet")["metadata"]["name"]
