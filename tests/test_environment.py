"""pyproject.toml, requirements.lock, environment.yml and what is installed here say the same."""

import platform
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ddlib import ROOT

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ADDRESS = re.compile(
    r"://|--(extra-)?index-url|--find-links|\s@\s|(^|[\s\"'=])(/|~/|\.\.?/)|\b[\w-]+\.(org|com|net|io)\b"
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]


def lines(name):
    """The lines of a lock file, continued ones joined, without the comment at its top."""
    joined = re.sub(r"\\\n", " ", (ROOT / name).read_text()).splitlines()
    return [line.strip() for line in joined if line.strip() and not line.startswith("#")]


def requirement(line):
    """What one line of a lock file pins."""
    return Requirement(re.split(r"\s--hash=", line)[0])


def environment(python):
    """The markers of a Python version on Linux."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    full = {"python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    return {**default_environment(), **linux, "platform_machine": "x86_64", **full}


def pins(where):
    """Package -> version that the lock gives under the markers `where`; each package at most once."""
    found = {}
    for pin in map(requirement, lines("requirements.lock")):
        if pin.marker is None or pin.marker.evaluate(where):
            name, (specifier,) = canonicalize_name(pin.name), pin.specifier
            assert name not in found, f"{name} is pinned twice where {pin.marker}"
            found[name] = specifier.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_meets_pyproject_on_every_python(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    pinned = pins(environment(python))
    for declared in map(Requirement, DECLARED):
        pin = pinned.get(canonicalize_name(declared.name))
        assert pin and declared.specifier.contains(pin, prereleases=True), f"{declared}: the lock has {pin}"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-uv.lock"])
def test_the_lock_is_exact_hashed_and_has_no_address(name):
    for line in lines(name):
        assert not ADDRESS.search(line), line
        assert [specifier.operator for specifier in requirement(line).specifier] == ["=="], line
        hashes = re.findall(r"--hash=(\S+)", line)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), line


def test_environment_yml_takes_everything_from_the_lock():
    told = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in told["dependencies"] if isinstance(entry, dict))
    others = [entry for entry in told["dependencies"] if isinstance(entry, str)]
    assert pip == ["-r requirements.lock"]
    assert [re.split(r"[=<>]", entry)[0] for entry in others] == ["python", "pip"]
    python = others[0].removeprefix("python=")
    assert python in PYTHONS and SpecifierSet(PROJECT["requires-python"]).contains(python)


def test_installed_is_what_the_lock_says():
    where = {**default_environment(), "extra": ""}
    different = {}
    for name, pin in pins(where).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing"
        if installed == "missing" or Version(installed).public != Version(pin).public:
            different[name] = f"{installed} is installed, the lock says {pin}"
    assert different == {}, f"python {platform.python_version()} at {sys.prefix}: run make setup"
