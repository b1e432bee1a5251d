"""The training worker as a process: what holds of it however it was started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from app.core.queue import Queue
from tests.servers import children_of, ending, eventually, start, valkey_server

AS_THE_MANUAL_SAYS = ["--queues", "training", "--pool", "prefork", "--concurrency", "1"]


def test_each_message_has_a_child_of_its_own_though_nobody_asked_for_it(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "drtl.sqlite3")
    said = tmp_path / "worker.log"
    with valkey_server(tmp_path) as broker_url, said.open("wb") as log:
        told = {"DRTL_DATA_DIR": str(tmp_path), "DRTL_BROKER_URL": broker_url, "DRTL_TRAINING_THREADS": "1"}
        worker = start(
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "INFO", *AS_THE_MANUAL_SAYS],
            env=os.environ | told,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

        def another(than: int | None) -> int | None:
            children = children_of(worker.pid)
            return children[0] if len(children) == 1 and children[0] != than else None

        queue = Queue(broker_url)
        with ending(worker):
            eventually(lambda: "ready." in said.read_text(), timeout_s=90, what="the worker")
            child = eventually(lambda: another(None), what="a child")
            for _ in range(2):
                queue.send_training("job_that_nobody_has")
                child = eventually(lambda: another(child), what="another child")  # noqa: B023 - called at once
        queue.close()
