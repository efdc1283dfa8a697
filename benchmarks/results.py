"""The measured values of all rounds, and their medians."""

import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.plan import Plan

OURS = "docker-image-proxy"
REGISTRY = "docker-registry"
DISTRIBUTION = "distribution v3"  # the successor of docker-registry, which Debian does not have
NGINX = "nginx"
SANIC = "empty Sanic handler"
SANIC_LOGGING = "empty Sanic handler, its access log on"
DIRECT = "the upstream itself"
HASHLIB = "hashlib"
PEERS = (REGISTRY, NGINX, DISTRIBUTION)

Key = tuple[str, str, str, str]  # scenario, case, server, metric


@dataclass
class Results:
    plan: Plan
    values: dict[Key, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, scenario: str, case: str, server: str, **metrics: float) -> None:
        for metric, value in metrics.items():
            self.values.setdefault((scenario, case, server, metric), []).append(value)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"  {scenario} | {case} | {server}: {shown}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(f"  note: {text}", file=sys.stderr, flush=True)
        if text not in self.notes:
            self.notes.append(text)

    def median(self, scenario: str, case: str, server: str, metric: str) -> float | None:
        found = self.values.get((scenario, case, server, metric))
        return statistics.median(found) if found else None

    def worst(self, scenario: str, case: str, server: str, metric: str) -> float | None:
        """The largest value of all rounds, for values that must never exceed a bound."""
        return max(self.values.get((scenario, case, server, metric), []), default=None)

    def cases(self, scenario: str) -> dict[str, list[str]]:
        """Each case of a scenario with its servers, in the order in which they were measured."""
        found: dict[str, list[str]] = {}
        for name, case, server, _ in self.values:
            if name == scenario and server not in found.setdefault(case, []):
                found[case].append(server)
        return found

    def ratio(self, scenario: str, case: str, metric: str, server: str, to: str) -> float | None:
        """The median of the ratios of the rounds. The servers of a round are measured right after each other."""
        ours, theirs = (self.values.get((scenario, case, one, metric), []) for one in (server, to))
        found = [value / other for value, other in zip(ours, theirs, strict=True) if other] if theirs else []
        return statistics.median(found) if found else None

    def save(self, file: Path) -> None:
        rows = [[*key, values] for key, values in self.values.items()]
        document = {"plan": asdict(self.plan), "values": rows, "notes": self.notes, "failures": self.failures}
        file.write_text(json.dumps(document, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Self:
        document = json.loads(file.read_text(encoding="utf-8"))
        values = {tuple(key): values for *key, values in document["values"]}
        return cls(Plan(**document["plan"]), values, document["notes"], document["failures"])
