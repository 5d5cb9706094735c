"""`python -m fuzz TARGET [SECONDS]`: libFuzzer by atheris on one target; what it finds stands in fuzz/found/."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["castlegate"]):
    from fuzz.seeds import WORDS, seeds
    from fuzz.targets import TARGETS

FOLDER = Path(__file__).parent / "found"


def main() -> None:
    name, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300
    corpus = FOLDER / name
    start = FOLDER / f"{name}-seeds"
    for folder in (corpus, start):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (start / str(number)).write_bytes(seed)
    words = FOLDER / "words"
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    options = [
        f"-max_total_time={seconds}", f"-dict={words}", f"-artifact_prefix={corpus}-", "-max_len=2048", "-timeout=10",
        "-rss_limit_mb=1024", "-print_final_stats=1",
    ]  # fmt: skip
    with TARGETS[name]() as target:
        atheris.Setup(["fuzz", str(corpus), str(start), *options], target)
        atheris.Fuzz()


main()
