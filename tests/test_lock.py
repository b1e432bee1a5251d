"""requirements/ holds what pyproject.toml asks for: on each Python and platform one version of it, and its hashes."""

import re
import shutil
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import NoReturn

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = {path.stem: path for path in sorted((ROOT / "requirements").glob("*.txt"))}
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": platform,
        "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[platform],
        "platform_machine": machine,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "nt" if platform == "win32" else "posix",
    }
    for python in ("3.11", "3.12", "3.13", "3.14")
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"))
]
environments = pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda e: f"{e['python_version']}-{e['sys_platform']}-{e['platform_machine']}"
)


def blocks(file: str) -> list[str]:
    """The requirements of a file, each with its hashes, on one line."""
    lines = FILES[file].read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "--"))]


def pins(file: str) -> list[Requirement]:
    return [Requirement(block.split("--hash")[0]) for block in blocks(file)]


def locked(environment: dict[str, str], *files: str) -> dict[str, Version]:
    """The version of every package in an environment. Fails where one has two."""
    found: dict[str, Version] = {}
    for pin in (pin for file in files for pin in pins(file)):
        if pin.marker is None or pin.marker.evaluate(environment):
            [exact] = pin.specifier
            assert exact.operator == "=="
            assert canonicalize_name(pin.name) not in found, pin
            found[canonicalize_name(pin.name)] = Version(exact.version)
    return found


def asked_for(lines: list[str], environment: dict[str, str]) -> list[Requirement]:
    asked = [Requirement(line) for line in lines]
    return [line for line in asked if line.marker is None or line.marker.evaluate({**environment, "extra": ""})]


@pytest.mark.parametrize("file", FILES)
def test_every_requirement_has_hashes_of_its_files(file: str) -> None:
    for block in blocks(file):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), block
        assert not re.search(r"--hash=(?!sha256:[0-9a-f]{64}\b)", block), block
        assert " @ " not in block, block  # An address instead of an index.


@environments
@pytest.mark.parametrize("torch", ["torch-cpu", "torch-cuda"])
def test_the_lock_holds_what_the_project_asks_for(environment: dict[str, str], torch: str) -> None:
    service = locked(environment, "service", torch)
    everything = locked(environment, "service", torch, "dev")
    project = PROJECT["project"]
    for lines, held in (
        (project["dependencies"], service),
        (project["optional-dependencies"]["dev"], everything),
        (PROJECT["build-system"]["requires"], locked(environment, "build")),
    ):
        for asked in asked_for(lines, environment):
            assert canonicalize_name(asked.name) in held, f"{asked} is not locked: make lock"
            assert held[canonicalize_name(asked.name)] in asked.specifier, f"{asked} is locked otherwise: make lock"


@environments
def test_both_builds_of_torch_are_the_same_version(environment: dict[str, str]) -> None:
    cpu, cuda = locked(environment, "torch-cpu")["torch"], locked(environment, "torch-cuda")["torch"]
    assert cpu.local == "cpu"
    assert cpu.public == cuda.public


def test_what_the_locked_packages_need_themselves_is_locked() -> None:
    """As far as this environment has the very versions that are locked."""
    environment = {"extra": ""}
    held = locked(environment, "service", "torch-cpu", "dev")
    for name, version in held.items():
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if Version(installed.version) != version:
            continue
        for asked in asked_for(installed.requires or [], environment):
            assert canonicalize_name(asked.name) in held, f"{name} needs {asked}"
            assert held[canonicalize_name(asked.name)] in asked.specifier, f"{name} needs {asked}"


def test_the_image_is_made_of_locked_packages_alone() -> None:
    installs = re.findall(r"pip install (.+)", (ROOT / "Dockerfile").read_text())
    assert len(installs) > 3
    for options in installs:
        assert "--no-deps" in options
        assert "--require-hashes" in options or "--no-index /dist/" in options, options


# uv as far as `.ci/lock` needs it, on a day when everything has a newer version: what the output file or a constraint
# holds stays where it is.
STAND_IN_FOR_UV = """
import re, sys
from pathlib import Path

arguments = sys.argv[1:]
given = dict(zip(arguments, arguments[1:]))
files = ["build"] if arguments[-1].endswith(".in") else ["service", "torch-cuda", *["dev"] * ("dev" in arguments)]
output = Path(given["--output-file"])
held = output.read_text() + (Path(given["--constraint"]).read_text() if "--constraint" in given else "")
moves = given.get("--upgrade-package")
pinned = lambda pin: pin[0] if pin[0] in held and pin[1] != moves else f"{pin[1]}==9999"
needed = "".join((Path(__file__).parent / "requirements" / f"{file}.txt").read_text() for file in files)
needed = re.sub(r"^([a-z0-9.-]+)==[^ ;]+", pinned, needed, flags=re.MULTILINE)
output.write_text(re.sub("^#.*\\n", "", needed, flags=re.MULTILINE))
"""


def out_of_reach(address: str, **_: object) -> NoReturn:
    raise OSError(f"{address} is not asked in tests")


@pytest.mark.parametrize("name", ["pillow", "pytest", "hatchling", "packaging"])
def test_one_package_moves_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (".ci", "requirements"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "uv").write_text(STAND_IN_FOR_UV)
    spec = spec_from_loader("lock", SourceFileLoader("lock", str(tmp_path / ".ci/lock")))
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(lock := module_from_spec(spec))
    monkeypatch.setattr(lock, "UV", [sys.executable, tmp_path / "uv"])
    monkeypatch.setattr("urllib.request.urlopen", out_of_reach)  # So torch's hashes on file stay.

    lock.main(["--upgrade-package", name])

    for path in FILES.values():
        moved = re.sub(rf"^{name}==[^ ;]+", f"{name}==9999", path.read_text(), flags=re.MULTILINE)
        assert (tmp_path / "requirements" / path.name).read_text() == moved, path.name
    assert f"\n{name}==9999 " in "".join(path.read_text() for path in (tmp_path / "requirements").iterdir())
