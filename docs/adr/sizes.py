"""Print version, licence and installed size of every direct dependency, for the tables of 0002."""

import re
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

LICENCES = {  # Where the metadata's licence is its whole text, or nothing but a classifier.
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
}


def licence(package: Distribution) -> str:
    stated = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    if stated and "\n" not in stated:
        return str(stated)
    named = (LICENCES.get(line) for line in package.metadata.get_all("Classifier") or [])
    return next((name for name in named if name), "see its metadata")


def size_mib(package: Distribution) -> float:
    files = (Path(str(file.locate())) for file in package.files or [] if file.suffix != ".pyc")
    return sum(file.stat().st_size for file in files if file.exists()) / 2**20


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in group:
            name = re.split(r"[^A-Za-z0-9-]", requirement)[0]
            package = distribution(name)
            print(f"| {name} | {package.version} | {licence(package)} | {size_mib(package):.1f} |")
        print()


if __name__ == "__main__":
    main()
