"""Makes a job of a request's body: of its options, with pairs or with the name of a dataset."""

from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.api import examples
from app.api.archives import ZIP
from app.api.deps import Services
from app.api.openapi import form
from app.api.options import given_once
from app.api.pair_intake import add_dataset, examine_upload, store_dataset
from app.api.pair_uploads import EITHER_FILES_OR_ARCHIVE, FORM_FILES_EXAMPLE, PAIR_ENCODING, PAIR_FIELDS, ZIP_BODY
from app.api.pairs import require_trainable
from app.api.problems import InvalidBody
from app.api.quotas import require_priority, require_room_for_a_job
from app.api.schemas.datasets import PairOut
from app.api.schemas.jobs import JobFromDataset, JobOptions
from app.api.uploads import Upload
from app.core import repository, training_queue, usage
from app.core.errors import Conflict, Unprocessable
from app.core.tables import Job

_OPTIONS: Final[dict[str, Any]] = JobOptions.model_json_schema()["properties"]
JOB_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": form({**PAIR_FIELDS, **_OPTIONS}, required=["name"], anyOf=EITHER_FILES_OR_ARCHIVE),
                "encoding": PAIR_ENCODING,
                "examples": {"files": {"value": {**FORM_FILES_EXAMPLE, "name": "scanner", "preset": "quick"}}},
            },
            ZIP: ZIP_BODY,
            "application/json": {
                "schema": JobFromDataset.model_json_schema(),
                "examples": {"dataset": {"value": examples.JOB_FROM_DATASET}},
            },
        },
    },
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": "Beside a zip: as the form field.",
            "example": examples.OPTIONS[name],
        }
        for name, schema in _OPTIONS.items()
    ],
}


def read_options(upload: Upload, request: Request) -> JobOptions:
    """The options, from wherever this type of body has them. Raises InvalidBody or Unprocessable."""
    try:
        match upload.media_type:
            case "application/json":
                for name in request.query_params:
                    raise Unprocessable("Beside JSON, options belong into the body.", pointer=name)
                return JobFromDataset.model_validate_json(upload.text)
            case _:
                return JobOptions.model_validate(
                    given_once(upload.fields, request.query_params, JobOptions.model_fields)
                )
    except ValidationError as error:
        raise InvalidBody(error) from error


def add_job(options: JobOptions, upload: Upload, services: Services, session: Session) -> Job:
    """Insert the job and, unless it names one, its dataset. The caller commits."""
    repository.require_free_name(session, options.name, new_version=options.new_version)
    require_room_for_a_job(session, services.limits)
    require_priority(services.limits, options.priority)
    if isinstance(options, JobFromDataset):
        if options.fix:
            raise Unprocessable("The dataset is stored already; give `fix` when uploading its pairs.", pointer="/fix")
        dataset = repository.get_dataset(session, options.dataset_id)
        if not options.allow_rejects:
            require_trainable([PairOut(name=pair.name, **pair.report) for pair in dataset.pairs])
        require_enough_unshuffling(options, dataset.scale)
    else:
        session.commit()  # Decoding takes long; no transaction stays open meanwhile.
        pairs = examine_upload(upload, services, options.fix)
        if not options.allow_rejects:
            require_trainable([PairOut(name=pair.files.name, **pair.report) for pair in pairs])
        require_enough_unshuffling(options, pairs[0].scale)
        dataset = store_dataset(pairs, services)
        add_dataset(dataset, services, session)
    try:
        session.flush()
        usage.count_alone(session)
        require_room_for_a_job(session, services.limits)  # Again: others may have been queued meanwhile.
        job = Job(name=options.name, dataset_id=dataset.id, options=options.model_dump(exclude={"dataset_id"}))
        training_queue.put_in_line(session, job, options.priority)
        session.add(job)
        session.flush()
    except IntegrityError:
        session.rollback()
        raise lost_race(session, options) from None
    return job


def lost_race(session: Session, options: JobOptions) -> Exception:
    """What a rejected insert means: what was looked up before has changed since."""
    repository.require_free_name(session, options.name, new_version=options.new_version)
    if isinstance(options, JobFromDataset):
        repository.get_dataset(session, options.dataset_id)  # It may have been deleted.
    return Conflict("Another request got in between. Send it again.", retry_after_s=1)


def require_enough_unshuffling(options: JobOptions, scale: int) -> None:
    if options.unshuffle is not None and options.unshuffle < scale:
        detail = f"The pairs have a scale of {scale}, so unshuffle must be at least that, or null."
        raise Unprocessable(detail, pointer="/unshuffle")
