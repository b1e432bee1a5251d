"""Schemathesis against the real api with seeded rows, once for each way in which a client can stand to its keys."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Final, Literal

from app.core import keys
from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.keys import SCOPES
from app.core.settings import Settings
from tests.app.possessions import fill
from tests.chaos.api_process import api

Situation = Literal["open", "every scope", "read only", "no key", "wrong key"]
SITUATIONS: Final[tuple[Situation, ...]] = ("open", "every scope", "read only", "no key", "wrong key")
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
ROOT: Final = Path(__file__).parents[2]
ALL_PHASES: Final = "examples,coverage,fuzzing,stateful"
WRONG_KEY: Final = "drtl_" + "0" * 12 + "_" + "x" * 43


@dataclass(frozen=True)
class Outcome:
    """What one run of Schemathesis has found."""

    situation: Situation
    command: list[str]
    document: dict[str, Any] = field(repr=False)  # Schemathesis' own report
    output: str = field(repr=False)

    @property
    def passed(self) -> bool:
        return bool(self.document["exit_code"] == 0)


def prepare(settings: Settings, situation: Situation) -> tuple[dict[str, str], str | None]:
    """Give the client's owner one of everything, and the service the keys of the situation; ids, and the token."""
    engine = open_database(settings.database_url)
    rows = sessions(engine)
    assert settings.blob_dir is not None
    try:
        owner = "" if situation == "open" else "fuzzer"
        values = fill(rows, FolderStorage(settings.blob_dir), owner, "succeeded")
        if situation == "open":
            return values, None
        with rows.begin() as session:
            scopes = ["read"] if situation == "read only" else [scope for scope in SCOPES if scope != "admin"]
            limits = {"requests_per_minute": 0, "unfinished_jobs": 0}
            _, token = keys.create(session, "fuzzer", scopes, limits=limits)
        return values, {"no key": None, "wrong key": WRONG_KEY}.get(situation, token)
    finally:
        engine.dispose()


def fuzz(
    situation: Situation, folder: Path, broker_url: str, *, seed: int, phases: str = ALL_PHASES, **how_long: int
) -> Outcome:
    """Run every check of Schemathesis over the whole document; `how_long` are its `max_examples` or `max_time`."""
    with api(folder, broker_url) as running:
        values, token = prepare(running.settings, situation)
        report = folder / "report.json"
        config = folder / "schemathesis.toml"
        config.write_text(Template(CONFIG.read_text()).substitute(values))
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(config),
            "run",
            f"{running.url}/openapi.json",
        ]
        command += [
            "--seed",
            str(seed),
            "--report",
            "json",
            "--report-json-path",
            str(report),
            "--no-color",
            "--phases",
            phases,
        ]
        command += [word for name, number in how_long.items() for word in (f"--{name.replace('_', '-')}", str(number))]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if token is not None:
            command += ["--header", f"Authorization: Bearer {token}"]
        with (folder / "output").open("wb") as said:
            run = subprocess.run(command, env=environment, cwd=folder, stdout=said, stderr=said, check=False)
        output = (folder / "output").read_text()
        assert report.exists(), output
        document = json.loads(report.read_text()) | {"exit_code": run.returncode}
        assert not re.search(r"Traceback|Exception in ASGI", running.log()), running.log()[-4000:]
        return Outcome(situation, command, document, output)
