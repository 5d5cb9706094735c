"""The fuzz targets hold: for every seed, for what hypothesis makes of them, and for libFuzzer in a few seconds."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.seeds import seeds
from fuzz.targets import TARGETS
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_holds(name: str) -> None:
    with TARGETS[name]() as target:
        for seed in seeds(name):
            target(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_with_a_few_bytes_changed_hold(name: str) -> None:
    @given(st.sampled_from(seeds(name)), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=4))
    def check(seed: bytes, changes: list[tuple[int, bytes]]) -> None:
        for place, put in changes:
            seed = seed[:place] + put + seed[place + 1 :]
        target(seed)

    with TARGETS[name]() as target:
        check()


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("name", TARGETS)
def test_libfuzzer_finds_nothing_in_a_few_seconds(name: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "fuzz", name, "3"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
