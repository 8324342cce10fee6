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

LOCKS = ("requirements.lock", "requirements-uv.lock")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ADDRESS = re.compile(
    r"://|--(extra-)?index-url|--find-links|\s@\s|(^|[\s\"'=])(/|~/|\.\.?/)|\b[\w-]+\.(org|com|net|io)\b"
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]


def logical_lines(text):
    """The lines of a lock file, continued ones joined, without the comment at its top."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def entry(line):
    """(requirement, hashes) of one line of a lock file."""
    return Requirement(re.split(r"\s--hash=", line)[0]), re.findall(r"--hash=(\S+)", line)


def entries(text):
    """(requirement, hashes) of every pin of a lock file."""
    return [entry(line) for line in logical_lines(text)]


def read(name):
    """The entries of one of the repository's lock files."""
    return entries((ROOT / name).read_text())


def environment(python):
    """The markers of a Python version on Linux."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    full = {"python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    return {**default_environment(), **linux, "platform_machine": "x86_64", **full}


def pins(lock, where):
    """Package -> version that the lock gives under the markers `where`; each package at most once."""
    found = {}
    for requirement, _ in lock:
        if requirement.marker is None or requirement.marker.evaluate(where):
            name, (pin,) = canonicalize_name(requirement.name), requirement.specifier
            assert name not in found, f"{name} is pinned twice where {requirement.marker}"
            found[name] = pin.version
    return found


def unmet(declared, pinned):
    """The declared requirements that the pins do not meet, as sentences."""
    found = []
    for requirement in map(Requirement, declared):
        pin = pinned.get(canonicalize_name(requirement.name))
        if pin is None:
            found.append(f"{requirement.name}: not in the lock")
        elif not requirement.specifier.contains(pin, prereleases=True):
            found.append(f"{requirement}: the lock has {pin}")
    return found


def faults(text):
    """What a lock file breaks: a pin that is not exact, one without hashes, an address or a path."""
    found = []
    for line in logical_lines(text):
        if ADDRESS.search(line):
            found.append(f"address or path: {line}")
            continue
        requirement, hashes = entry(line)
        if [specifier.operator for specifier in requirement.specifier] != ["=="]:
            found.append(f"{requirement.name}: not pinned with ==")
        if not hashes or any(not re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes):
            found.append(f"{requirement.name}: no sha256")
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_meets_pyproject_on_every_python(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert unmet(DECLARED, pins(read("requirements.lock"), environment(python))) == []


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_is_exact_hashed_and_has_no_address(name):
    assert faults((ROOT / name).read_text()) == []


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
    for name, pin in pins(read("requirements.lock"), where).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing"
        if installed != "missing" and Version(installed).public == Version(pin).public:
            continue
        different[name] = f"{installed} is installed, the lock says {pin}"
    assert different == {}, f"python {platform.python_version()} at {sys.prefix}: run make setup"


HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"torch>=2 {HASH}\n", "torch: not pinned"),
        ("torch==2.15.0\n", "torch: no sha256"),
        ("torch==2.15.0 --hash=sha256:00\n", "torch: no sha256"),
        (f"--index-url https://example.test/simple\ntorch==2.15.0 {HASH}\n", "address or path"),
        (f"torch @ file:///opt/torch.whl {HASH}\n", "address or path"),
        (f"torch==2.15.0 {HASH}  # via mirror.example.com\n", "address or path"),
    ],
)
def test_a_fault_in_a_lock_is_seen(text, message):
    assert any(message in fault for fault in faults(text))


def test_a_lock_that_does_not_meet_pyproject_is_seen():
    lock = entries(f"numpy==1.26 {HASH}\nscipy==1.17.1 ; python_full_version < '3.12' {HASH}\n")
    assert unmet(["numpy>=2.0"], pins(lock, environment("3.12"))) == ["numpy>=2.0: the lock has 1.26"]
    assert unmet(["scipy>=1.15"], pins(lock, environment("3.11"))) == []
    assert unmet(["scipy>=1.15"], pins(lock, environment("3.12"))) == ["scipy: not in the lock"]
