"""Metrics as text: Prometheus (0.0.4) and OpenMetrics (1.0.0), which adds exemplars.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from typing import Any

from castlegate.telemetry.metrics import DURATION_BUCKETS, Exemplar, Family, Histogram, Registry

PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

_BOUNDS = [*map(str, DURATION_BUCKETS), "+Inf"]


def render(registry: Registry, *, openmetrics: bool = False) -> str:
    """All of it."""
    families = sorted(registry.families.values(), key=lambda family: family.name)
    text = "".join([_family(family, openmetrics=openmetrics) for family in families if family.children])
    return text + "# EOF\n" if openmetrics else text


def _family(family: Family[Any], *, openmetrics: bool) -> str:
    name, kind = family.name, family.make.kind
    told = name.removesuffix("_total") if openmetrics else name
    lines = [f"# HELP {told} {_escape(family.text)}", f"# TYPE {told} {kind}"]
    for values, child in sorted(family.children.items()):
        pairs = [f'{label}="{_escape(value)}"' for label, value in zip(family.labels, values, strict=True)]
        if isinstance(child, Histogram):
            lines += _histogram(name, pairs, child, openmetrics=openmetrics)
        else:
            lines.append(_sample(name, pairs, child.value))
    return "\n".join(lines) + "\n"


def _histogram(name: str, pairs: list[str], child: Histogram, *, openmetrics: bool) -> list[str]:
    lines, running = [], 0
    for bound, count, exemplar in zip(_BOUNDS, child.counts, child.exemplars, strict=True):
        running += count
        line = _sample(f"{name}_bucket", [*pairs, f'le="{bound}"'], running)
        lines.append(line + _exemplar(exemplar) if openmetrics else line)
    return [*lines, _sample(f"{name}_sum", pairs, child.total.value), _sample(f"{name}_count", pairs, running)]


def _exemplar(exemplar: Exemplar) -> str:
    if not exemplar.at:
        return ""
    return f' # {{trace_id="{exemplar.trace.decode()}"}} {exemplar.seconds:.6g} {exemplar.at:.3f}'


def _sample(name: str, pairs: list[str], value: float) -> str:
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    return f"{name}{labels} {value:.15g}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
