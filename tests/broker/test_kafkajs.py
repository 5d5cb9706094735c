"""What a kafkajs client, and so NestJS, sees of any broker: kafkajs/check.js does it, and tells."""

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.cache import cache_root, prepared
from tests.testbeds.node import find_node

_SOURCES = Path(__file__).with_name("kafkajs")


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder with kafkajs, installed into the cache the first time."""
    manifest = _SOURCES / "package.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
    return prepared(cache_root() / "node" / f"broker-kafkajs-{digest}", _install) / "node_modules"


def _install(folder: Path) -> None:
    node = find_node()
    shutil.copy(_SOURCES / "package.json", folder)
    command = [node.npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": node.path}, check=True, capture_output=True)


@pytest.fixture(scope="session")
def seen(bootstrap: str, modules: Path) -> dict[str, Any]:
    name = uuid.uuid4().hex[:10]
    command = [str(find_node().node), str(_SOURCES / "check.js"), bootstrap, f"js-{name}", f"group-{name}"]
    env = {**os.environ, "NODE_PATH": str(modules)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_topics_are_created_once(seen: dict[str, Any]) -> None:
    assert (seen["created"], seen["createdAgain"]) == (True, False)


def test_two_members_share_the_partitions(seen: dict[str, Any]) -> None:
    assert (seen["shares"], seen["state"], seen["listed"]) == ([0, 1], "Stable", True)


def test_an_idempotent_producer_writes_each_record_once(seen: dict[str, Any]) -> None:
    assert seen["baseOffsets"] == [str(number // 2) for number in range(20)]
    assert seen["values"] == sorted(f"v{number}" for number in range(20))
    assert seen["headers"] == ["x"]
    assert seen["ends"] == [[0, "0", "10"], [1, "0", "10"]]


def test_a_waiting_fetch_is_woken_by_a_record(seen: dict[str, Any]) -> None:
    # check.js lets a fetch wait for 600 ms.
    assert seen["medianWaited"] < 100


def test_offsets_are_committed_when_members_leave(seen: dict[str, Any]) -> None:
    assert seen["committed"] == [[0, "10"], [1, "10"]]
