"""The dashboard and the alert rules: valid for Prometheus, about metrics that exist, with links that exist."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.support.cached_mirror import MIB, cached, faulty_upstream, pull
from tests.e2e.support.processes import program
from tests.e2e.support.service import Serving

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
TITLES = re.findall(r"^## (.*)$", (ROOT / "docs" / "guides" / "alerts.md").read_text(), re.MULTILINE)


def dashboard_expressions() -> Iterator[str]:
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m")


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    found = program("promtool")
    assert found
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


def rules_of(folder: Path, expressions: list[str]) -> str:
    """A file of rules with these expressions."""
    rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(expressions)]
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    return str(path)


@pytest.mark.real("promtool")
def test_prometheus_accepts_the_alert_rules() -> None:
    done = promtool("check", "rules", str(FOLDER / "alerts.yaml"))
    assert (done.returncode, f"{len(RULES)} rules found" in done.stdout) == (0, True), done.stderr


@pytest.mark.real("promtool")
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", str(FOLDER / "alerts_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r'alertname="(\w+)"', (FOLDER / "alerts_test.yaml").read_text()))
    assert tested == {rule["alert"] for rule in RULES}


@pytest.mark.real("promtool")
def test_prometheus_accepts_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    expressions = list(dashboard_expressions())
    assert len(expressions) > 20
    done = promtool("check", "rules", rules_of(tmp_path, expressions))
    assert done.returncode == 0, done.stdout + done.stderr
    assert promtool("check", "rules", rules_of(tmp_path, ["sum(rate("])).returncode != 0, "promtool checks nothing"


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_each_runbook_link_leads_to_a_section_of_the_guide(rule: dict[str, object]) -> None:
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    page, _, anchor = annotations["runbook_url"].partition("#")
    assert page == "https://mirror.example.com/docs/guides/alerts.html"
    assert anchor in {title.lower().replace(" ", "-") for title in TITLES}
    assert anchor.replace("-", "") == str(rule["alert"]).lower()


@pytest.mark.real
def test_each_metric_of_the_dashboard_and_the_rules_is_one_of_a_real_service(serve: Serving, tmp_path: Path) -> None:
    with (
        faulty_upstream(tmp_path, tmp_path / "files") as upstream,
        cached(serve, upstream, tmp_path / "cache", WORKERS="1") as service,
    ):
        service.warm(2 * MIB)
        page = pull(service.proxy.port, "/metrics").body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    series = {name for name, kind in kinds.items() if kind != "histogram"}
    series |= {
        name + end for name, kind in kinds.items() if kind == "histogram" for end in ("_bucket", "_count", "_sum")
    }
    expressions = [*dashboard_expressions(), *(rule["expr"] for rule in RULES)]
    named = {name for text in expressions for name in re.findall(r"docker_image_proxy_\w+", text)}
    assert len(named) > 25
    assert sorted(named - series) == []
    # A download has passed through the histograms of requests and of the upstream.
    counts = re.findall(r"^docker_image_proxy_(\w+)_count\{", page, re.MULTILINE)
    observed = {"request_seconds", "response_bytes", "first_byte_seconds", "upstream_request_seconds"}
    assert observed | {"download_bytes_per_second"} <= set(counts)
    assert re.search(r"^docker_image_proxy_cache_disk_bytes [1-9]", page, re.MULTILINE)
