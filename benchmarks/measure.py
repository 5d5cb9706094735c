"""How a benchmark is made: one core for the subject, one for the load, CPU time per request, rounds taken in turn.

Only ratios of one run mean anything: subjects are measured alternately, and what is told is the median of rounds.
Never measure while anything else runs on the machine.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.testbeds.processes import Program

SUBJECT_CORE = 0
LOAD_CORE = 1
CONNECTIONS = (64, 1)

_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Accept": "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://shop.example/orders?page=3",
    "Cookie": "session=4f3c2b1a09f8e7d6c5b4a39281706f5e; theme=dark; consent=all",
    "Cache-Control": "no-cache",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    # wrk writes Host itself: ten in all.
}

_SCRIPT = """\
local paths, tokens = {{{paths}}}, {{{tokens}}}
local requests, next_one = {{}}, 0
init = function(args)
  local body = {body} > 0 and string.rep("x", {body}) or nil
  for i = 1, math.max(#paths, #tokens) do
    local path = paths[(i - 1) % #paths + 1]
    local headers = {{{headers}}}
    if #tokens > 0 then headers["Authorization"] = "Bearer " .. tokens[i] end
    if {vary} then headers["Referer"] = "https://shop.example/orders?page=" .. i end
    requests[i] = wrk.format("{method}", path, headers, body)
  end
end
request = function()
  next_one = next_one % #requests + 1
  return requests[next_one]
end
done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('RESULT {{"requests": %d, "seconds": %f, "bad_statuses": %d, "broken": %d, '
    .. '"p50_ms": %f, "p99_ms": %f}}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


class CannotMeasure(RuntimeError):
    """Something is missing or does not serve; the message says what."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started subject: where it serves, and the process whose tree is charged."""

    url: str
    program: Program
    admin: str = ""  # URL of its admin port


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured; `start` gets a folder for its files."""

    name: str
    start: Callable[[Path], AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for: these paths in turn. `vary`: a field of theirs differs from one request to the next."""

    paths: Sequence[str]
    connections: Sequence[int] = CONNECTIONS
    method: str = "GET"
    body: int = 0  # bytes
    vary: bool = False
    tokens: Sequence[str] = ()  # carried in turn


@dataclass(frozen=True, slots=True)
class Sample:
    """One subject in one round, or the medians of several."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: float


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    rounds: int
    seconds: int
    json: Path | None
    subjects: list[str] | None


def parse_options(description: str) -> Options:
    """Read the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="how often each subject is measured (default: 5)")
    parser.add_argument("--seconds", type=int, default=5, help="for how long each time (default: 5)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--subjects", help="only these, comma-separated")
    found = parser.parse_args()
    return Options(found.rounds, found.seconds, found.json, found.subjects.split(",") if found.subjects else None)


def compare(
    title: str, subjects: Sequence[Subject], load: Load, options: Options, *, warm_up_s: int, own: str = "castlegate"
) -> int:
    """Measure the subjects in turn, print a table, write the JSON; 1 if any request failed. `own`: whose CPU is
    divided by each other's.
    """
    medians, memory = measure_all(subjects, load, options, warm_up_s=warm_up_s)
    _print_table(title, medians, own)
    print("\npeak memory: " + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in memory.items()))
    if options.json:
        options.json.write_text(json.dumps(_result(medians, own), indent=2) + "\n")
    return tell_failures(medians)


def measure_all(
    subjects: Sequence[Subject], load: Load, options: Options, *, warm_up_s: int
) -> tuple[dict[tuple[str, int], Sample], dict[str, int]]:
    """Measure the subjects in turn: the medians by name and connections, and the peak memory by name."""
    chosen = [subject for subject in subjects if options.subjects is None or subject.name in options.subjects]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="castlegate-bench-")))
        script = write_script(folder, load)
        running = {}
        for subject in chosen:
            _say(f"starting {subject.name}")
            home = folder / subject.name
            home.mkdir()
            running[subject.name] = stack.enter_context(subject.start(home))
        for name, one in running.items():
            wait_until_serves(one, load)
            for connections in load.connections:
                _say(f"warming up {name}, connections: {connections}")
                measure(one, script, connections, warm_up_s)
        medians = _rounds(running, script, load.connections, options)
        return medians, {name: peak_memory(one.program.pid) for name, one in running.items()}


def tell_failures(medians: dict[tuple[str, int], Sample]) -> int:
    """1, and a word on stderr, if any request failed."""
    failed = [f"{name} at {count}" for (name, count), sample in medians.items() if sample.failed]
    if failed:
        print(f"requests failed: {', '.join(failed)}; these figures say nothing", file=sys.stderr)
    return 1 if failed else 0


def pinned(core: int, command: Sequence[str | Path]) -> list[str]:
    """The command, kept on one core with all that it starts."""
    return ["taskset", "-c", str(core % (os.cpu_count() or 1)), *map(str, command)]


def needed(program: str, how: str) -> str:
    """The path of a program, or a word on how to get it."""
    found = shutil.which(program)
    if found is None:
        raise CannotMeasure(f"{program} is not on the PATH: {how}")
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all below it, with threads and children that have ended."""
    return sum(_tree(root).values()) / os.sysconf("SC_CLK_TCK")


def _tree(root: int) -> dict[int, int]:
    """A process and all below it, with the ticks that each has taken."""
    times: dict[int, tuple[int, int]] = {}  # by process: parent, ticks
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue  # it has ended
        fields = stat.rpartition(")")[2].split()
        times[int(name)] = int(fields[1]), sum(map(int, fields[11:15]))
    tree = {root}
    while grown := {child for child, (parent, _) in times.items() if parent in tree and child not in tree}:
        tree |= grown
    return {member: times[member][1] for member in tree if member in times}


def peak_memory(root: int) -> int:
    """Bytes that a process and all below it held at most, added up."""
    return _memory(root, "VmHWM")


def resident_memory(root: int) -> int:
    """Bytes that they hold now."""
    return _memory(root, "VmRSS")


def _memory(root: int, row: str) -> int:
    held = 0
    for member in _tree(root):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{member}/status").read_text()
            held += next((int(line.split()[1]) for line in status.splitlines() if line.startswith(row)), 0) * 1024
    return held


def wait_until_serves(running: Running, load: Load) -> None:
    """Wait until the subject answers with 200."""
    path = load.paths[0]
    fields = {**_HEADERS, **({"Authorization": f"Bearer {load.tokens[0]}"} if load.tokens else {})}
    running.program.wait_until(lambda: _status(running.url, path, load.method, fields) == 200, f"200 for {path}", 60)


def _status(url: str, path: str, method: str, fields: Mapping[str, str]) -> int | None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body=b"x" if method == "POST" else None, headers=fields)
        return connection.getresponse().status
    return None


def _rounds(
    running: dict[str, Running], script: Path, counts: Sequence[int], options: Options
) -> dict[tuple[str, int], Sample]:
    samples: dict[tuple[str, int], list[Sample]] = {}
    for number in range(options.rounds):
        for connections in counts:
            for name, one in _rotated(running, number):
                sample = measure(one, script, connections, options.seconds)
                samples.setdefault((name, connections), []).append(sample)
                _say(
                    f"round {number + 1}/{options.rounds}, connections: {connections:2}, {name}: "
                    f"{sample.cpu_us:.1f} us, {sample.per_second:.0f}/s"
                )
    return {key: _median(found) for key, found in samples.items()}


def _rotated(running: dict[str, Running], by: int) -> Iterator[tuple[str, Running]]:
    names = list(running)
    for place in range(len(names)):
        name = names[(place + by) % len(names)]
        yield name, running[name]


def measure(running: Running, script: Path, connections: int, seconds: int) -> Sample:
    """One round of load by wrk."""
    wrk = needed("wrk", "apt-get install wrk")
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), running.url]
    before = cpu_seconds(running.program.pid)
    done = subprocess.run(pinned(LOAD_CORE, command), capture_output=True, text=True, check=False)
    spent = cpu_seconds(running.program.pid) - before
    told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not told:
        raise CannotMeasure(f"wrk failed:\n{done.stdout}{done.stderr}")
    result: dict[str, float] = json.loads(told[0].removeprefix("RESULT "))
    if not result["requests"]:
        raise CannotMeasure(f"no request was answered; {running.program.tail()}")
    return Sample(
        cpu_us=spent / result["requests"] * 1e6,
        per_second=result["requests"] / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        failed=result["bad_statuses"] + result["broken"],
    )


def _median(samples: Sequence[Sample]) -> Sample:
    columns = {name: [getattr(sample, name) for sample in samples] for name in asdict(samples[0])}
    failed = sum(columns.pop("failed"))
    return Sample(**{name: statistics.median(values) for name, values in columns.items()}, failed=failed)


def write_script(folder: Path, load: Load) -> Path:
    """What wrk is to ask for."""
    script = folder / "load.lua"
    script.write_text(_script(load))
    return script


def _script(load: Load) -> str:
    return _SCRIPT.format(
        method=load.method,
        body=load.body,
        vary=str(load.vary).lower(),
        tokens=", ".join(f'"{token}"' for token in load.tokens),
        paths=", ".join(f'"{path}"' for path in load.paths),
        headers=", ".join(f'["{name}"] = "{value}"' for name, value in _HEADERS.items()),
    )


def _result(medians: dict[tuple[str, int], Sample], own_name: str) -> dict[str, Any]:
    subjects: dict[str, dict[str, Any]] = {}
    for (name, connections), sample in medians.items():
        subjects.setdefault(name, {})[str(connections)] = asdict(sample)
    most = max(connections for _, connections in medians)
    many = {name: sample for (name, connections), sample in medians.items() if connections == most}
    own = many.pop(own_name, None)
    # CPU per request beside each peer's: less than 1 is less work.
    ratios = {name: round(own.cpu_us / peer.cpu_us, 3) for name, peer in many.items()} if own else {}
    return {"subjects": subjects, "ratios": ratios}


def _print_table(title: str, medians: dict[tuple[str, int], Sample], own: str) -> None:
    print(f"\n{title}: medians\n")
    print(f"{'':12} {'conns':>5} {'CPU us/req':>11} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'failed':>7}")
    for (name, connections), sample in sorted(medians.items(), key=lambda item: (-item[0][1], item[1].cpu_us)):
        print(
            f"{name:12} {connections:5} {sample.cpu_us:11.1f} {sample.per_second:8.0f} "
            f"{sample.p50_ms:8.2f} {sample.p99_ms:8.2f} {sample.failed:7.0f}"
        )
    for name, ratio in _result(medians, own)["ratios"].items():
        print(f"\n{own} / {name}: {ratio:.2f} of its CPU time per request")


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
