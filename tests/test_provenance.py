"""Provenance: what is said of versions, revision and machine is true, and names nobody."""

import getpass
import json
import os
import platform
import subprocess
import sys

from hybridgen import provenance


def test_the_machine_is_described_but_not_named():
    found = json.dumps(provenance.machine()).lower()
    for name in (platform.node(), os.path.expanduser("~"), os.getcwd()):
        assert name.lower() not in found
    assert getpass.getuser() != provenance.machine()["cpu"]
    assert provenance.machine()["processors"] == provenance.processors() >= 1


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_git_revision(tmp_path):
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    assert provenance.git_revision(package) is None
    git(tmp_path / "checkout", "init", "-q")
    (package / "a.py").write_text("a = 1\n")
    assert provenance.git_revision(package) is None  # inside a checkout, but no part of it
    git(tmp_path / "checkout", "add", "package/a.py")
    git(tmp_path / "checkout", "commit", "-q", "-m", "Add a")
    clean = provenance.git_revision(package)
    assert len(clean) == 40
    (package / "b.py").write_text("b = 1\n")
    assert provenance.git_revision(package) == clean + "+dirty"
    (package / "b.py").unlink()
    (package / "a.py").write_text("a = 2\n")
    assert provenance.git_revision(package) == clean + "+dirty"


def test_git_revision_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_revision() is None


def test_versions_of_what_is_absent(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("hybridgen", "no-such-package"))
    found = provenance.versions()
    assert found["no-such-package"] == "not installed"
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
