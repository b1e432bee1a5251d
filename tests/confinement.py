"""What the containers of docker-compose.yml may not do, forbidden to a local process by Linux namespaces."""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

USER = 10001  # The image's; it has no name here, and no home.


def confined(command: Sequence[str], writable: Sequence[Path]) -> list[str]:
    """The command as a user without rights, with a root that is read-only but for these folders.

    The user is one of a namespace of its own; outside it stands for whoever runs this, and may read what that one may.
    """
    without_rights = ["--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
    steps = ["set -e"]
    steps += [f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(folder))}" for folder in writable]
    steps += ["mount -o remount,bind,ro /", f"exec {shlex.join(['setpriv', *without_rights, *command])}"]
    # The capabilities within the namespace are kept for as long as it takes to mount.
    namespaces = ["--user", f"--map-user={USER}", f"--map-group={USER}", "--keep-caps", "--mount"]
    return ["unshare", *namespaces, "--propagation", "private", "sh", "-c", "\n".join(steps)]


@cache
def reason_why_not() -> str | None:
    """Why processes cannot be confined here; None where they can."""
    if missing := [tool for tool in ("unshare", "setpriv", "mount") if shutil.which(tool) is None]:
        return f"namespaces are not permitted here: there is no {', '.join(missing)}"
    tried = subprocess.run(confined(["true"], []), capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"namespaces are not permitted here: {tried.stderr.strip()}"
