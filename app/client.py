"""The service's HTTP interface for Python callers: the commands use it, and a script may."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from app.core.settings import settings

Json = dict[str, Any]
ENDED: Final = ("succeeded", "failed", "cancelled")
GRAPH_STATES: Final = ("running", "succeeded")  # In the others a graph that is not there will not come.
NEXT_STEP: Final = {
    "name-taken": "choose another --name, or add a version to the model with --new-version",
    "unavailable": "see what does not answer with: curl <url>/readyz",
}
IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg"})


class ClientError(Exception):
    """Something that the person at the terminal can act on; `hint` is the next step where there is one."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Refused(ClientError):
    """The service answered with a problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        lines = [str(problem.get("detail") or problem.get("title") or f"HTTP {status}")]
        lines += [f"  {file['name']}: {file['reason']}" for file in problem.get("files") or []]
        self.status = status
        self.kind = str(problem.get("type", "")).rpartition("/")[2]  # "not-ready" of "/problems/not-ready"
        super().__init__("\n".join(lines), NEXT_STEP.get(self.kind))


@dataclass(frozen=True)
class PairPaths:
    """The two files of a pair on this machine."""

    name: str
    clean: Path
    distorted: Path


def pairs_in(folder: Path) -> list[PairPaths]:
    """The pairs in folder/clean and folder/distorted, by name: equal file stems, or else equal order.

    Raises ClientError that says what is missing.
    """
    files: dict[str, list[Path]] = {}
    for kind in ("clean", "distorted"):
        inside = folder / kind
        if not inside.is_dir():
            raise ClientError(
                f"{folder} has no folder named {kind}", "put clean images in clean/, the others in distorted/"
            )
        files[kind] = sorted(path for path in inside.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files[kind]:
            raise ClientError(f"{inside} has no PNG or JPEG files")
    clean, distorted = files["clean"], files["distorted"]
    stems = {path.stem for path in clean}, {path.stem for path in distorted}
    if stems[0] != stems[1]:
        alone = sorted(stems[0] ^ stems[1])
        if len(clean) != len(distorted) or stems[0] & stems[1]:
            raise ClientError(f"{folder}: without a partner: {', '.join(alone[:5])}{' …' if len(alone) > 5 else ''}")
    return [PairPaths(a.stem, a, b) for a, b in zip(clean, distorted, strict=True)]


def model_name(folder: Path) -> str:
    """A model name made of the folder's, in the letters that the service allows."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:60] or "my-device"


def find_service(url: str | None) -> str:
    """Where the service is: as told, or else `DRTL_URL`, or else the one that `drtl up` runs on this machine."""
    if url := url or os.environ.get("DRTL_URL"):
        return url.rstrip("/")
    announced = settings().data_dir / "service.json"
    try:
        return str(json.loads(announced.read_text())["url"]).rstrip("/")
    except FileNotFoundError:
        raise ClientError(
            "no service runs on this machine", "start one with: drtl up, or name one with --url"
        ) from None


class Client:
    """One service. Every method raises Refused for an answer that is an error, ClientError where none comes."""

    def __init__(self, url: str, timeout_s: float = 180.0) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=httpx.Timeout(timeout_s, connect=5.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self.http.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._gone(error) from error
        if answer.is_error:
            raise _refusal(answer)
        return answer

    def _gone(self, error: httpx.TransportError) -> ClientError:
        hint = "is it running? start one with: drtl up"
        return ClientError(f"{self.url} does not answer: {str(error) or type(error).__name__}", hint)

    def _json(self, method: str, path: str, **request: Any) -> Json:
        answer: Json = self._call(method, path, **request).json()
        return answer

    def ready(self) -> bool:
        """Whether database, broker and storage answer."""
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def create_job(self, pairs: Sequence[PairPaths], options: Mapping[str, Any]) -> Json:
        """Upload the pairs and start training on them."""
        with contextlib.ExitStack() as opened:
            files = [
                (kind, (path.name, opened.enter_context(path.open("rb"))))
                for pair in pairs
                for kind, path in (("clean", pair.clean), ("distorted", pair.distorted))
            ]
            form = {
                key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()
            }
            return self._json("POST", "/v1/jobs", files=files, data=form)

    def job(self, job_id: str) -> Json:
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, limit: int = 20, state: str | None = None) -> list[Json]:
        """The newest jobs."""
        page = self._json("GET", "/v1/jobs", params={"limit": limit} | ({"state": state} if state else {}))
        return list(page["items"])

    def follow(self, job_id: str, every_s: float = 0.5, patience_s: float = 60.0) -> Iterator[Json]:
        """The job, again and again until it has ended. Bears a service that is away for up to `patience_s`."""
        answered = time.monotonic()
        while True:
            try:
                job = self.job(job_id)
            except ClientError as error:
                away = not isinstance(error, Refused) or error.status >= 500
                if not away or time.monotonic() - answered > patience_s:
                    raise
            else:
                answered = time.monotonic()
                yield job
                if job["state"] in ENDED:
                    return
            time.sleep(every_s)

    def cancel(self, job_id: str) -> Json:
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def graph(self, job_id: str) -> Json | None:
        """The relation graph, or None while there is none yet."""
        try:
            return self._json("GET", f"/v1/jobs/{job_id}/graph")
        except Refused as refusal:
            if refusal.kind == "not-ready":
                return None
            raise

    def graph_svg(self, job_id: str) -> bytes:
        return self._call("GET", f"/v1/jobs/{job_id}/graph", headers={"Accept": "image/svg+xml"}).content

    def models(self, limit: int = 100) -> list[Json]:
        return list(self._json("GET", "/v1/models", params={"limit": limit})["items"])

    def model_version(self, reference: str) -> Json:
        """The version behind `name@version`, or the newest of `name`, with its card."""
        name, _, version = reference.partition("@")
        newest = version or self._json("GET", f"/v1/models/{name}")["versions"][0]
        return self._json("GET", f"/v1/models/{name}/versions/{newest}")

    def super_resolve(self, reference: str, image: Path) -> httpx.Response:
        """The image restored by `name`, `name@alias` or `name@version`, as PNG; the headers say how."""
        media_type = "image/png" if image.suffix.lower() == ".png" else "image/jpeg"
        headers = {"Content-Type": media_type, "Accept": "image/png"}
        path = f"/v1/models/{reference}/super-resolve"
        answer = self._call("POST", path, content=image.read_bytes(), headers=headers)
        while answer.status_code == 202:  # Not done within the service's wait.
            location = answer.headers["Location"]
            if self._json("GET", location)["state"] in ENDED:
                return self._call("GET", f"{location}/result")
            time.sleep(0.5)
        return answer

    def restore_file(
        self,
        reference: str,
        source: Path,
        target: Path,
        output: str,
        options: Mapping[str, Any],
        progress: Callable[[float], None] = lambda share: None,
    ) -> Json:
        """Restore an image file into another, `png`, `jpeg`, `webp` or `tiff`; returns how it was made.

        A large image is waited for, however long it takes; `progress` hears shares from 0 to 1. Raises OSError, too.
        """
        # RFC 7240: the image itself if it is done in 10 s, else an operation to follow.
        headers = {"Content-Type": "application/octet-stream", "Prefer": "respond-async, wait=10"}
        headers["Accept"] = f"image/{output}"
        path = f"/v1/models/{reference}/super-resolve"
        with source.open("rb") as image:
            answer = self._save("POST", path, target, content=image, headers=headers, params=dict(options))
        if answer.status_code == 202:
            self._follow_operation(answer.headers["Location"], progress)
            answer = self._save("GET", f"{answer.headers['Location']}/result", target)
        return {
            "model": answer.headers.get("X-DRTL-Model", reference),
            "precision": answer.headers.get("X-DRTL-Precision"),
        }

    def _follow_operation(self, path: str, progress: Callable[[float], None]) -> None:
        pause_s = 0.05
        while (operation := self._json("GET", path))["state"] not in ENDED:
            progress(operation.get("progress", 0.0))
            time.sleep(pause_s)
            pause_s = min(1.0, 1.5 * pause_s)

    def resolve(self, reference: str) -> tuple[str, int]:
        """Name and number of the version behind `name` (the one in production), `name@alias` or `name@version`."""
        name, _, wanted = reference.partition("@")
        if wanted.isdecimal():
            return name, int(wanted)
        aliases = self._json("GET", f"/v1/models/{name}")["aliases"]
        if (wanted or "production") not in aliases:
            what = f"no alias {wanted!r}" if wanted else "no version in production"
            raise ClientError(f"model {name!r} has {what}", f"see what it has with: drtl models show {name}")
        return name, int(aliases[wanted or "production"])

    def download_model(self, name: str, version: int, kind: str, target: Path, patience_s: float = 300.0) -> None:
        """Save a model's file, `weights` or `onnx`; waits for an ONNX file that is being made. Raises OSError, too."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._save("GET", f"/v1/models/{name}/versions/{version}/{kind}", target)
            except Refused as refusal:
                if refusal.kind != "not-ready" or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
            else:
                return

    def _save(self, method: str, path: str, target: Path, **request: Any) -> httpx.Response:
        """Save a 200 answer's body in a file, which appears under its name when it is whole; read any other's."""
        unfinished = target.with_name(f".{target.name}.part")
        try:
            with self.http.stream(method, path, **request) as answer:
                if answer.status_code != 200:
                    answer.read()
                else:
                    with unfinished.open("wb") as file:
                        for chunk in answer.iter_bytes():
                            file.write(chunk)
                    unfinished.replace(target)
        except httpx.TransportError as error:
            raise self._gone(error) from error
        finally:
            unfinished.unlink(missing_ok=True)
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
    except ValueError:  # Not from the service itself, but from something before it.
        problem = {"detail": f"HTTP {answer.status_code} {answer.reason_phrase}: {answer.text[:200]}"}
    return Refused(answer.status_code, problem)
