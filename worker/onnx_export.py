"""Makes the ONNX file of a model version, in a process of its own (docs/adr/0010-onnx.md says why)."""

import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from app.core import repository
from app.core.errors import NotFound
from app.core.owners import look_as
from worker.service import PATIENCE_S, Service

log = logging.getLogger(__name__)

LONGEST_S: Final = 300.0

_one_at_a_time = threading.Lock()  # The threads are there for images and for the rounds of housekeeping.


def export(service: Service, reference: str) -> None:
    """Make, store and note the file of `name@version`, unless this process is making one, be it another's.

    Whoever waits for it asks again, and is told to.
    What may go well another time (a lost database, a full disk, too little memory, a killed child) is logged and
    raised, and the next request tries anew; that the model cannot be exported is noted for whoever asks.
    """
    if not _one_at_a_time.acquire(blocking=False):
        return
    try:
        _export(service, reference)
    finally:
        _one_at_a_time.release()
        service.queue.notify_done(reference)


def _export(service: Service, reference: str) -> None:
    name, version, owner = parsed(reference)
    try:
        with service.read_sessions() as session:
            look_as(session, owner)
            model = repository.get_model_version(session, name, version)
    except NotFound:
        log.warning("model %s: it is gone, nothing to export", reference)
        return
    if model.onnx_blob is not None:
        return
    with tempfile.TemporaryDirectory(prefix="drtl-onnx-") as folder:
        weights = service.fetch(model.weights_blob, Path(folder) / "model.safetensors")
        file = Path(folder) / "model.onnx"
        child = subprocess.run(
            [sys.executable, "-m", "ml.onnx_export", weights, file],
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # The images that are restored meanwhile need the cores.
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        if child.returncode < 0:
            raise RuntimeError(f"model {reference}: its export was killed by signal {-child.returncode}")
        if child.returncode == os.EX_TEMPFAIL:
            raise RuntimeError(f"model {reference}: its export found no room: {child.stderr}")
        blob = error = None
        if child.returncode == 0:
            with file.open("rb") as made:
                blob = service.store(made)
        else:
            mark = secrets.token_hex(4)
            error = f"This model cannot be exported to ONNX (reference {mark})."
            log.error("model %s: not exported (reference %s): %s", reference, mark, child.stderr)

    def note(session: Session) -> None:
        look_as(session, owner)
        repository.note_onnx_export(session, name, model.version, blob=blob, error=error)

    service.write(note, PATIENCE_S)
    log.info("model %s: %s", reference, "exported to ONNX" if blob else "not exported")


def parsed(reference: str) -> tuple[str, int, str]:
    """Name, version and owner of `name@version` (the open service's) or `name@version/owner`."""
    model, _, owner = reference.partition("/")
    name, _, version = model.partition("@")
    return name, int(version), owner
