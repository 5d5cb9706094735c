"""Where downloaded and compiled things are kept between runs: made once, never half, also with several runs at once."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def cache_root() -> Path:
    """The folder named by `CASTLEGATE_CACHE`, else `.cache` in the repository."""
    named = os.environ.get("CASTLEGATE_CACHE")
    return Path(named).resolve() if named else REPO / ".cache"


def prepared(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return `target`, after `fill` has made it if it is not there yet.

    `fill` works in a folder beside it, renamed when complete: what stands under the name is whole.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        fill(partial)
        partial.rename(target)
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, whatever becomes of its holder
        yield
