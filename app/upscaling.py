"""Restores image files one after another: on this machine with a model file, or by a service with a model's name."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from app.failures import CommandFailed
from app.image_files import Task
from app.supervision import die_with_parent
from drtl_client import Client, errors

ROOT: Final = Path(__file__).parents[1]
STOP_WITHIN_S: Final = 5.0
# Final sizes, relative to the input.
LARGEST_OUTSCALE: Final = 16
LARGEST_OUTSCALE_OF_A_SERVICE: Final = 8


@dataclass(frozen=True)
class Options:
    """How to restore, and how to write the result; `outscale` is relative to the input."""

    output: str = "png"
    precision: str = "auto"
    outscale: float | None = None
    ensemble: int = 1
    metadata: str = "keep"

    def chosen(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {name: value for name, value in asdict(self).items() if value != asdict(Options())[name]}


@dataclass(frozen=True)
class Progress:
    """So much of the image, 0…1, is done."""

    task: Task
    share: float


@dataclass(frozen=True)
class Restored:
    """The result is there."""

    task: Task
    facts: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """There is no result."""

    task: Task
    reason: str


Event = Progress | Restored | Failed
Tell = Callable[[Event], None]


def is_model_file(model: str) -> bool:
    """Whether the word means a file. A name of the registry has no slash and never ends like a file of weights."""
    return model.endswith(".safetensors") or os.sep in model


def is_onnx_file(model: str) -> bool:
    """Whether the word means a model for other runtimes. A name of the registry may end so, too, if no file does."""
    return model.lower().endswith(".onnx") and (os.sep in model or Path(model).exists())


def restore_here(model: Path, tasks: Sequence[Task], options: Options, tell: Tell) -> None:
    """Restore with a model file, in a process of its own: this side loads no torch.

    Raises CommandFailed for a file that is no model. Every task ends as `Restored` or `Failed`.
    """
    if not model.is_file():
        raise CommandFailed(f"{model} does not exist", "drtl models download NAME gets a model from a service")
    flags = [word for name, value in options.chosen().items() for word in (f"--{name}", str(value))]
    # -P and the path keep a file of the user's that is named like one of ours from being run instead.
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    left = dict(enumerate(tasks))
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as said:
        asked.writelines(json.dumps({"source": str(t.source), "target": str(t.target)}) + "\n" for t in tasks)
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ml.upscale", model, *flags],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if "unusable" in event:
                    raise CommandFailed(event["unusable"])
                _pass_on(event, left, tell)
            code = process.wait()
        finally:
            stop(process)
        for task in list(left.values()):
            tell(Failed(task, f"the restoring process ended with code {code}{last_line(said)}"))


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that has not ended, with time to remove the file that it was writing."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _pass_on(event: dict[str, Any], left: dict[int, Task], tell: Tell) -> None:
    number = event["image"]
    match event:
        case {"share": float(share)}:
            tell(Progress(left[number], share))
        case {"restored": dict(facts)}:
            tell(Restored(left.pop(number), facts))
        case {"failed": str(reason)}:
            tell(Failed(left.pop(number), reason))
        case _:
            raise AssertionError(event)


def last_line(said: IO[str]) -> str:
    """The end of what a process said before it died, for a message."""
    said.seek(0)
    lines = said.read().strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def restore_by_service(client: Client, model: str, tasks: Sequence[Task], options: Options, tell: Tell) -> None:
    """Restore with a registered model. Raises NotFound for an unknown one. Tasks end as `Restored` or `Failed`.

    Where nobody answers any more, or the key's quota is used up, all that are left fail without being tried.
    """
    chosen = {name: value for name, value in options.chosen().items() if name != "output"}
    for number, task in enumerate(tasks):
        tell(Progress(task, 0.0))
        try:
            task.target.parent.mkdir(parents=True, exist_ok=True)
            how = client.models[model].super_resolve_to(
                task.target,
                task.source,
                accept=f"image/{options.output}",
                on_progress=partial(_tell_share, tell, task),
                **chosen,
            )
        except errors.NotFound:
            raise  # The model's name is wrong, for every image alike.
        except errors.QuotaExhausted as error:
            _leave(tasks[number:], f"{error.detail}{when_to_go_on(error)}", tell)
            return
        except errors.Problem as error:
            tell(Failed(task, error.detail))  # Its files are this one, for the same reason.
        except OSError as error:
            tell(Failed(task, str(error)))
        except errors.DRTLError as error:  # Nobody answers any more.
            _leave(tasks[number:], str(error), tell)
            return
        else:
            facts = {"model": how.model, "precision": how.precision, "match": how.match, "match_word": how.match_word}
            tell(Restored(task, facts))


def _leave(tasks: Sequence[Task], reason: str, tell: Tell) -> None:
    for task in tasks:
        tell(Failed(task, reason))


def when_to_go_on(refusal: errors.Problem) -> str:
    """A sentence with this machine's time at which it may be asked again, to the minute; nothing where that is open."""
    if refusal.retry_after_s is None:
        return ""
    then = datetime.now().astimezone() + timedelta(seconds=refusal.retry_after_s)
    return f" The same command goes on after {then:%Y-%m-%d %H:%M}."


def _tell_share(tell: Tell, task: Task, share: float) -> None:
    tell(Progress(task, share))
