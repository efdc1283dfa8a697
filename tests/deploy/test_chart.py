"""The Helm chart gives objects that Kubernetes accepts, and settings that the service accepts."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from entrypoints.settings.sources import KNOWN_NAMES, load_settings
from entrypoints.version import VERSION

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "docker-image-proxy"
RUN_HELM = Path(__file__).with_name("run_helm.py")
EXAMPLES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*.yaml"))
CRDS = {"ServiceMonitor"}
"""Kinds that the Prometheus operator defines, so that Kubernetes has no schema of them."""
OLDEST, NEWEST = "1.30", "1.37"
SECRET = "0123456789abcdef" * 4
FILES = {
    "secrets/server-secret": SECRET,
    "secrets/shared-index-password": "password",
    "secrets/metrics-accounts": "cHJvbWV0aGV1czpwYXNzd29yZA==",
    "secrets/operators": "olga:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "secrets/htpasswd": "alice:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "upstreams/docker.io": "password",
}
"""What the Secrets of the examples contain."""

has_helm = importlib.util.find_spec("helm_python") is not None
needs_helm = pytest.mark.skipif(
    not has_helm, reason="helm-python-sdk is not installed: the templates of the chart are not rendered"
)


def example(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()) or {})


def helm(command: str, values: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, str(RUN_HELM), command, str(CHART), json.dumps(values)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@cache
def rendered(name: str) -> dict[str, str]:
    done = helm("render", example(name))
    assert done.returncode == 0, done.stderr
    return {Path(path).name: text for path, text in json.loads(done.stdout).items()}


def objects(name: str) -> Iterator[dict[str, Any]]:
    for path, text in rendered(name).items():
        if path.endswith(".yaml"):
            yield from filter(None, yaml.safe_load_all(text))


def of_kind(name: str, *kinds: str) -> dict[str, Any]:
    [found] = [one for one in objects(name) if one["kind"] in kinds]
    return found


def workload(name: str) -> dict[str, Any]:
    return of_kind(name, "Deployment", "StatefulSet")


def pod(name: str) -> dict[str, Any]:
    return dict(workload(name)["spec"]["template"]["spec"])


def container(name: str) -> dict[str, Any]:
    [found] = pod(name)["containers"]
    return dict(found)


def environment(name: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(name)["env"]}


def refusal(values: Mapping[str, Any]) -> str:
    done = helm("render", values)
    assert done.returncode == 1, done.stdout
    return done.stderr


# --- without Helm ---


def keys(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys(f"{prefix}{name}.", value)


def described(prefix: str, schema: Mapping[str, Any]) -> Iterator[str]:
    for name, one in schema.get("properties", {}).items():
        assert one["description"].endswith("."), name
        yield f"{prefix}{name}"
        yield from described(f"{prefix}{name}.", one)


def test_the_schema_describes_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # Helm itself passes "global" to each chart. The chart does not read the parts of these objects.
    free = ("resources.", "podSecurityContext.")
    found = {key for key in keys("", values) if not key.startswith(free)}
    assert found == set(described("", schema)) - {"global"}


def test_the_chart_is_for_this_version_of_the_service() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == VERSION


def test_the_chart_refuses_the_settings_that_have_values_of_their_own() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    refused = set(schema["properties"]["env"]["propertyNames"]["not"]["enum"])
    template = (CHART / "templates" / "workload.yaml").read_text()
    given = set(re.findall(r"- name: ([A-Z_]+)$", template, re.MULTILINE))
    # Each secret can be given as a file or as a text.
    texts = {name.removesuffix("_FILE") for name in given if name.removesuffix("_FILE").lower() in KNOWN_NAMES}
    assert given | texts <= refused
    assert {name.lower() for name in refused} <= KNOWN_NAMES


# --- with Helm ---


@needs_helm
@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_lint_has_no_warning(name: str) -> None:
    done = helm("lint", example(name))
    assert (done.stderr, json.loads(done.stdout)) == ("", [])


@needs_helm
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", EXAMPLES)
def test_kubernetes_accepts_the_objects(name: str, version: str) -> None:
    found = [one for one in objects(name) if one["kind"] not in CRDS]
    assert len(found) >= 2
    for one in found:
        kubernetes_validate.validate(one, version, strict=True)


@needs_helm
def test_kubernetes_refuses_an_object_with_a_wrong_type() -> None:
    one = of_kind("default", "Service")
    one["spec"]["ports"][0]["port"] = "http"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, NEWEST, strict=True)


@needs_helm
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_service_accepts_its_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment(name)
    assert {one for one in found if one.lower() not in KNOWN_NAMES} <= {
        "AWS_REGION", "AWS_ALLOW_HTTP", "AWS_ENDPOINT_URL",
    }  # fmt: skip
    folder = "/etc/docker-image-proxy"
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    for text in [one["data"]["mirror.toml"] for one in objects(name) if one["kind"] == "ConfigMap"]:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "mirror.toml").write_text(text.replace(folder, str(tmp_path)))
    for variable, text in found.items():
        if variable not in {"TLS_CERT", "TLS_KEY"}:  # their content is checked too
            monkeypatch.setenv(variable, text.replace(folder, str(tmp_path)))
    settings = load_settings()
    is_administered = name == "persistent"
    assert (settings.page, [one.user for one in settings.admin_accounts]) == (
        ("admin", ["olga"]) if is_administered else ("public", [])
    )
    assert settings.is_shared == (name in {"replicas", "in-cluster-store"})
    assert settings.port == container(name)["ports"][0]["containerPort"]
    assert pod(name)["terminationGracePeriodSeconds"] > settings.shutdown_grace
    assert str(settings.cache_dir) in [one["mountPath"] for one in container(name)["volumeMounts"]]


@needs_helm
@pytest.mark.parametrize("name", EXAMPLES)
def test_selectors_match_the_pods(name: str) -> None:
    labels = workload(name)["spec"]["template"]["metadata"]["labels"]
    selectors = [workload(name)["spec"]["selector"]["matchLabels"], of_kind(name, "Service")["spec"]["selector"]]
    for one in objects(name):
        if one["kind"] == "PodDisruptionBudget":
            selectors.append(one["spec"]["selector"]["matchLabels"])
        elif one["kind"] == "NetworkPolicy":
            selectors.append(one["spec"]["podSelector"]["matchLabels"])
    selectors += [one["labelSelector"]["matchLabels"] for one in pod(name).get("topologySpreadConstraints", [])]
    assert all(selector.items() <= labels.items() and selector for selector in selectors)


@needs_helm
@pytest.mark.parametrize("name", ["replicas", "persistent"])
def test_the_service_monitor_finds_the_port_of_the_service(name: str) -> None:
    monitor, service = of_kind(name, "ServiceMonitor"), of_kind(name, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] == ("metrics" if name == "persistent" else "http")
    assert ("basicAuth" in endpoint) == (name == "persistent")
    assert endpoint.get("scheme", "http") == ("https" if name == "persistent" else "http")


@needs_helm
def test_the_port_of_the_metrics_is_the_same_everywhere() -> None:
    [port] = [one for one in container("persistent")["ports"] if one["name"] == "metrics"]
    assert environment("persistent")["METRICS_PORT"] == str(port["containerPort"]) == "9100"
    allowed = of_kind("persistent", "NetworkPolicy")["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in allowed] == [["http"], ["metrics"]]
    assert allowed[0]["from"] != allowed[1]["from"]
    assert [one["name"] for one in container("replicas")["ports"]] == ["http"]


@needs_helm
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_mounted_volume_exists(name: str) -> None:
    claims = [one["metadata"]["name"] for one in workload(name)["spec"].get("volumeClaimTemplates", [])]
    volumes = [*claims, *(one["name"] for one in pod(name)["volumes"])]
    assert len(volumes) == len(set(volumes))
    assert sorted(volumes) == sorted(one["name"] for one in container(name)["volumeMounts"])


@needs_helm
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_container_cannot_write_to_its_image_and_has_no_rights(name: str) -> None:
    context = container(name)["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["automountServiceAccountToken"] is False


@needs_helm
def test_a_persistent_cache_makes_a_stateful_set_with_a_volume_for_each_replica() -> None:
    assert workload("persistent")["kind"] == "StatefulSet"
    [claim] = workload("persistent")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "200Gi"
    assert [workload(name)["kind"] for name in EXAMPLES if name != "persistent"] == ["Deployment"] * 3


@needs_helm
def test_secrets_are_files_and_not_variables() -> None:
    [volume] = [one for one in pod("replicas")["volumes"] if one["name"] == "secrets"]
    paths = {
        item["path"]: one["secret"]["name"] for one in volume["projected"]["sources"] for item in one["secret"]["items"]
    }
    assert paths == {"server-secret": "mirror-server", "shared-index-password": "mirror-index"}
    for variable, path in [
        ("SERVER_SECRET_FILE", "server-secret"),
        ("SHARED_INDEX_PASSWORD_FILE", "shared-index-password"),
    ]:
        assert environment("replicas")[variable].endswith(f"/secrets/{path}")


@needs_helm
def test_logins_of_the_store_and_of_upstreams_come_from_existing_secrets() -> None:
    assert [one["secretRef"]["name"] for one in container("in-cluster-store")["envFrom"]] == [
        "mirror-store", "mirror-upstream-login",
    ]  # fmt: skip


@needs_helm
def test_web_identity_is_an_annotation_of_the_service_account() -> None:
    account = of_kind("replicas", "ServiceAccount")
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    assert pod("replicas")["serviceAccountName"] == account["metadata"]["name"]


@needs_helm
def test_probes_use_the_scheme_of_the_service() -> None:
    for name in EXAMPLES:
        probes = [container(name)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        scheme = "HTTPS" if name == "persistent" else "HTTP"
        assert [(one["scheme"], one["port"]) for one in probes] == [(scheme, "http")] * 3
        assert probes[1]["path"] == "/livez"


@needs_helm
def test_a_changed_settings_file_replaces_the_pods() -> None:
    def checksum(name: str) -> str:
        return str(workload(name)["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum("persistent") != checksum("default")


@needs_helm
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"shared": {"store": "s3://bucket"}}, "shared.store is set and shared.index is not"),
        ({"shared": {"index": "redis://valkey"}}, "shared.index is set and shared.store is not"),
        ({"shared": {"store": "s3://bucket", "index": "redis://valkey"}}, "serverSecret.name is not set"),
        ({"replicaCount": 2}, "serverSecret.name is not set"),
        ({"page": {"mode": "admin"}}, "page.operatorsSecret.name is not set"),
        ({"page": {"mode": "private"}}, "mode"),
        ({"env": {"ADMIN_ACCOUNTS": "olga:hash"}}, "ADMIN_ACCOUNTS"),
        ({"env": {"WORKERS": 4}}, "env"),
        ({"env": {"CACHE_DIR": "/cache"}}, "CACHE_DIR"),
        ({"replicas": 2}, "replicas"),
        ({"ingress": {"enabled": True}}, "hosts"),
    ],
)
def test_values_with_which_the_service_would_not_work_are_refused(values: dict[str, Any], reason: str) -> None:
    assert reason in refusal(values)


@needs_helm
def test_the_notes_warn_of_replicas_without_the_shared_tier() -> None:
    assert "shared.store is not set" in rendered("persistent")["NOTES.txt"]
    assert "shared.store is not set" not in rendered("replicas")["NOTES.txt"]
    assert "https://mirror.example.com" in rendered("replicas")["NOTES.txt"]
