"""What functions in Python cost: CPU microseconds of a request beside one that is only forwarded.

python -m benchmarks.functions [--rounds N] [--seconds N] [--json FILE] [--subjects ...]
"""

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import CannotMeasure, Load, measure_all, parse_options, tell_failures
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin

_MODULE = "benchmarks.services.functions"
_ROUTES = {
    "forwarded": "call: origin",
    "forwarded, a policy in Python": "call: origin, policy: allow",
    "a function": f'call: "python:{_MODULE}:nothing"',
    "a function in a thread": f'call: "python:{_MODULE}:in_a_thread"',
    "a function with one call": f'call: "python:{_MODULE}:one"',
    "a function with three calls": f'call: "python:{_MODULE}:three"',
}


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("What functions in Python cost.")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as name, origin(Path(name)) as port:
            variables = {"ORIGIN_PORT": str(port)}
            subjects = [castlegate(_config(does), variables, name=name) for name, does in _ROUTES.items()]
            medians, _ = measure_all(subjects, Load(["/orders/7"], (64,)), options, warm_up_s=2)
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    plain = medians.get(("forwarded", 64))
    print(f"\n{'CPU us per request, medians':32} {'us':>8} {'more':>8}\n")
    for (name, _), sample in medians.items():
        print(f"{name:32} {sample.cpu_us:8.1f} {'' if plain is None else f'{sample.cpu_us - plain.cpu_us:+8.1f}'}")
    if options.json:
        options.json.write_text(json.dumps({name: sample.cpu_us for (name, _), sample in medians.items()}, indent=2))
    return tell_failures(medians)


def _config(does: str) -> str:
    head = Path(__file__).with_name("gateway_http.yaml").read_text()
    policies = f'policies: {{allow: {{python: "{_MODULE}:allow"}}}}\npython: {{queued: 1000}}\n'
    return f"{policies}{head}  GET /orders/{{id}}: {{{does}}}\n"


if __name__ == "__main__":
    sys.exit(main())
