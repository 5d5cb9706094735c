"""Which keys are signed with, and which are refused, in the words that operators read."""

import subprocess
from pathlib import Path

import pytest

from castlegate.config.report import Report
from castlegate.issuer.keys import load_keys

GOOD = {
    "p256": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ed25519": ["genpkey", "-algorithm", "ED25519"],
    "rsa2048": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
}
BAD = {
    "rsa1024": (["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "a key of 1024 bits"),
    "p384": (["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "a kind that is not signed with"),
    "x25519": (["genpkey", "-algorithm", "X25519"], "a kind that is not signed with"),
    "encrypted": (["genpkey", "-algorithm", "ED25519", "-aes256", "-pass", "pass:secret"], "which is encrypted"),
    "small exponent": (
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"],
        "the public exponent 3",
    ),
}


def made(folder: Path, name: str, command: list[str]) -> str:
    subprocess.run(["openssl", *command, "-out", folder / name], check=True, capture_output=True)
    (folder / name).chmod(0o600)
    return name


@pytest.mark.parametrize("name", GOOD)
def test_a_strong_key_is_taken(tmp_path: Path, name: str) -> None:
    report = Report(tmp_path)
    [key] = load_keys([made(tmp_path, name, GOOD[name])], report.place("issuer", "keys"))
    assert not report.mistakes
    assert not report.warnings
    assert not {"d", "p", "q", "k"} & key.public.keys()


@pytest.mark.parametrize("name", BAD)
def test_a_weak_or_unfit_key_is_refused(tmp_path: Path, name: str) -> None:
    command, reason = BAD[name]
    report = Report(tmp_path)
    assert load_keys([made(tmp_path, name, command)], report.place("issuer", "keys")) == []
    assert reason in str(report)


def test_the_same_key_twice_is_a_mistake_and_one_that_others_may_read_a_warning(tmp_path: Path) -> None:
    report = Report(tmp_path)
    name = made(tmp_path, "p256", GOOD["p256"])
    (tmp_path / name).chmod(0o640)
    load_keys([name, name], report.place("issuer", "keys"))
    assert "which holds a key that is there already" in str(report)
    assert "chmod 600" in str(report.warnings[0])


def test_a_file_that_is_missing_or_of_another_kind_is_told_with_what_makes_a_right_one(tmp_path: Path) -> None:
    made(tmp_path, "private", GOOD["p256"])
    subprocess.run(["openssl", "pkey", "-in", tmp_path / "private", "-pubout", "-out", tmp_path / "public"], check=True)
    report = Report(tmp_path)
    assert load_keys(["not there.pem", "public"], report.place("issuer", "keys")) == []
    missing, public = (str(mistake) for mistake in report.mistakes)
    assert "-out 'not there.pem' && chmod 600 'not there.pem'" in missing
    assert "only what is public of a key" in public
    assert "-out FILE &&" in public, "it is not to be written over what is there"
