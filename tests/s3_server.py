"""A real S3 API server on loopback, which can be killed and started again: rclone's, over a folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from app.embedded import free_port
from tests.servers import eventually, start

BUCKET: Final = "drtl-test"
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "drtl-access", "AWS_SECRET_ACCESS_KEY": "drtl-very-secret"}


class S3Server:
    """`rclone serve s3` on a free port; objects are files below `folder`, so that tests can make them old."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bucket = folder / "data" / BUCKET
        self.bucket.mkdir(parents=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client has to find in its environment."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_REGION": "eu-central-1"}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        keys = ",".join(CREDENTIALS.values())
        options = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", keys, "--config", os.devnull]
        # With entity tags it would read the whole file for each stretch that is asked for.
        options += ["--etag-hash", ""]
        # What a test changes in the folder is to be seen soon; with a time of 0 the server spins.
        options += ["--dir-cache-time", "10ms"]
        command: list[str | Path] = [Path(sys.executable).with_name("rclone"), "serve", "s3", *options]
        with (self.folder / "log").open("ab") as log:
            self.process = start([*command, self.folder / "data"], stdout=log, stderr=log)
        eventually(self._answers, what="the S3 server")

    def _answers(self) -> bool:
        try:
            urlopen(f"http://127.0.0.1:{self.port}/").close()
        except HTTPError:
            return True  # It wants a signature.
        except URLError:
            return False
        return True

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def hang(self) -> None:
        """Stop answering, with connections open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(which)
