"""What docker-compose.yml says about a container's rights, imposed on a local process by Linux namespaces."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534


def confined(command: Sequence[str], writable: Sequence[Path]) -> list[str]:
    """The command with a read-only root, but for these folders, without capabilities and without a way to new ones.

    Where this runs as root, the command runs as nobody, if nobody may read the interpreter.
    """
    steps = ["set -e"]
    steps += [f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(folder))}" for folder in writable]
    steps += ["mount -o remount,bind,ro /", f"exec {shlex.join([*_without_rights(), *command])}"]
    namespace = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return ["unshare", *namespace, "--propagation", "private", "sh", "-c", "\n".join(steps)]


def _without_rights() -> list[str]:
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if runs_as_nobody() else []
    return ["setpriv", *user, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


def owner_of_files() -> int:
    """Whom writable folders have to belong to."""
    return NOBODY if runs_as_nobody() else os.geteuid()


@cache
def runs_as_nobody() -> bool:
    """Whether the command gets a user of its own: not where interpreter or code lie in somebody's closed home."""
    if os.geteuid() != 0:
        return False
    look = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    # A link that leads nowhere for nobody may be passed over in favour of another interpreter.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import app.core.tables; print(sys.version, sys.base_prefix)"
    ended = subprocess.run(
        [*look, sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, cwd="/", check=False
    )
    return ended.stdout.strip() == f"{sys.version} {sys.base_prefix}"


@cache
def reason_why_not() -> str | None:
    """Why processes cannot be confined here; None where they can."""
    if missing := [tool for tool in ("unshare", "setpriv", "mount") if shutil.which(tool) is None]:
        return f"namespaces need {', '.join(missing)}"
    tried = subprocess.run(confined(["true"], []), capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"namespaces are not permitted here: {tried.stderr.strip()}"
