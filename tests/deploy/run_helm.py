"""Renders and checks a chart with Helm, in a process of its own, because Helm brings the runtime of Go, which installs
signal handlers and starts threads.

    python run_helm.py lint CHART VALUES        prints the warnings and errors, as a JSON list
    python run_helm.py render CHART VALUES      prints the text of each template by its path, as a JSON object

VALUES is a JSON object. If Helm refuses the chart or the values, the process ends with status 1 and prints the reason
to standard error.
"""

import json
import sys

import helm_python as helm

_WARNING = 2


def main(command: str, chart: str, values: str) -> int:
    given = json.loads(values)
    try:
        if command == "lint":
            messages = helm.lint(chart, given, strict=True)["messages"]
            print(json.dumps([one for one in messages if one["severity"] >= _WARNING]))
        else:
            with helm.Chart.load(chart) as loaded:
                print(json.dumps(loaded.render(given, name="release", namespace="registry")))
    except helm.HelmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
