"""The numbers of the benchmark are parsed, compared and checked against bounds."""

from pathlib import Path

import pytest

from benchmarks import blobs, checks, manifests, report, several_replicas, shared_store, tables
from benchmarks.downloads import BadAnswerError
from benchmarks.plan import FULL, GIB, KIB, MIB, blob_case, size_text
from benchmarks.results import HASHLIB, NGINX, OURS, REGISTRY, Results

WRK = """\
Running 1s test @ http://127.0.0.1:1/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms    2.11ms  31.02ms   94.55%
    Req/Sec    58.42k     3.26k   63.15k    70.00%
  Latency Distribution
     50%  433.00us
     75%  610.00us
     90%    1.20ms
     99%   17.88ms
  58201 requests in 1.00s, 90.00MB read
Requests/sec:  58126.10
Transfer/sec:     89.88MB
"""
CASE = blob_case(GIB, 4)


def measured(ours: float, registry: float, nginx: float) -> Results:
    results = Results(FULL)
    for server, value in ((OURS, ours), (REGISTRY, registry), (NGINX, nginx)):
        for off in (-0.1, 0, 0.3):
            results.add(blobs.WARM, CASE, server, throughput=value + off, cpu=1 / value, upstream=0)
    return results


def test_the_output_of_wrk_is_parsed() -> None:
    assert manifests.parse_wrk(WRK) == manifests.Load(58201, 58126.10, 0.433, 17.88)
    slow = manifests.parse_wrk(WRK.replace("17.88ms", " 1.02s "))  # wrk fills up short units
    assert slow.p99 == 1020


@pytest.mark.parametrize("line", ["  Non-2xx or 3xx responses: 12", "  Socket errors: connect 0, read 3, write 0"])
def test_a_load_with_failed_requests_is_an_error(line: str) -> None:
    with pytest.raises(BadAnswerError, match=r"responses: 12|read 3"):
        manifests.parse_wrk(WRK + line)


def test_sizes_and_cases_are_formatted() -> None:
    assert [size_text(size) for size in (GIB, 200 * MIB, 64 * KIB, 3)] == ["1 GiB", "200 MiB", "64 KiB", "3 B"]
    assert [blob_case(GIB, 1), CASE] == ["1 GiB, 1 client", "1 GiB, 4 clients"]


def test_a_table_shows_medians_and_the_ratio_to_the_best_peer() -> None:
    text = tables.section_text(tables.SECTIONS[0], measured(3, 1.5, 2))
    assert f"| {CASE} | {OURS} | **3.00** (1.50x) | **0.33** (0.67x) | 0 |" in text
    assert f"|  | {NGINX} | 2.00 | 0.50 | 0 |" in text
    assert "GiB/s of docker-registry, 1 GiB, 4 clients: 1.40 to 1.80 (20 % from the median)" in text


def test_a_bound_compares_the_servers_round_by_round() -> None:
    results = Results(FULL)
    for ours, nginx in ((1, 2), (9, 10), (3, 1)):  # the ratio of the medians would be 1.5
        results.add(blobs.WARM, CASE, OURS, throughput=ours)
        results.add(blobs.WARM, CASE, NGINX, throughput=nginx)
    assert results.ratio(blobs.WARM, CASE, "throughput", OURS, NGINX) == 0.9


@pytest.mark.parametrize(("cpu", "verdict"), [(2.69, "holds"), (2.71, "**fails**")])
def test_the_pass_of_sha_256_of_a_cold_blob_is_not_compared_with_nginx(cpu: float, verdict: str) -> None:
    results, case = Results(FULL), blob_case(FULL.big, 1)
    for server, value in ((OURS, cpu), (NGINX, 1.0)):
        results.add(blobs.COLD_TLS, case, server, cpu=value)
    results.add(blobs.COLD_TLS, blobs.HASHED, HASHLIB, cpu=0.5)
    [bound] = [one for one in checks.bounds(results) if one.scenario == blobs.COLD_TLS and "SHA-256" in one.text]
    assert report.headline([bound]).endswith(f"| {verdict} |\n")


@pytest.mark.parametrize(("four", "store", "verdicts"), [(1.09, 0, [True, True]), (1.11, 1, [False, False])])
def test_four_replicas_may_need_a_tenth_more_than_one_and_nothing_of_the_store(
    four: float, store: float, verdicts: list[bool]
) -> None:
    results = Results(FULL)
    for server, cpu in ((several_replicas.ONE, 1.0), (several_replicas.FOUR, four)):
        results.add(several_replicas.REPLICAS, several_replicas.MANIFESTS, server, request_cpu=cpu, store=store)
    found = [bound for bound in checks.bounds(results) if several_replicas.MANIFESTS in bound.text]
    assert [bound.holds for bound in found] == verdicts


@pytest.mark.parametrize(("line", "least"), [(shared_store.FAST_LINE, 70), (shared_store.LIMITED_LINE, 90)])
def test_a_shared_store_may_slow_down_a_cold_blob_a_little(line: str, least: float) -> None:
    def holds(rate: float) -> bool:
        results = Results(FULL)
        case = shared_store.line_case(FULL.big, line)
        for server, value in ((shared_store.WITHOUT, 100), (shared_store.WITH, rate)):
            results.add(shared_store.STORE, case, server, rate=value)
        [bound] = [one for one in checks.bounds(results) if case in one.text]
        return bound.holds

    assert holds(least)
    assert not holds(least - 1)


def test_a_bound_without_a_measurement_fails() -> None:
    found = {bound.text: bound for bound in checks.bounds(measured(3, 1.5, 4))}
    verdicts = [found[f"warm blobs, {CASE}: throughput relative to {peer}"].holds for peer in (REGISTRY, NGINX)]
    assert verdicts == [True, False]
    missing = [bound for bound in found.values() if bound.measured is None]
    assert len(missing) == len(found) - 4
    assert not any(bound.holds for bound in missing)


def test_the_report_contains_tables_bounds_notes_and_the_machine() -> None:
    results = measured(3, 1.5, 2)
    results.note("Something was missing.")
    text = report.document(results, checks.bounds(results), {"processor": "a fast one"}, picture=True)
    for part in ("### Warm blobs", "| holds |", "| **fails** |", "- Something was missing.", "| a fast one |", ".png)"):
        assert part in text
    assert "**watched**" not in text
    watched = report.document(results, checks.bounds(results), {}, picture=False, watched="watched")
    assert watched.index("**watched**") < watched.index("## Bounds")


def test_saved_results_are_loaded_unchanged(tmp_path: Path) -> None:
    results = measured(3, 1.5, 2)
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
