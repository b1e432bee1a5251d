# One image for every process of the service; docker-compose.yml says which command each runs. Python packages are those
# of requirements/, file by file by their hashes (docs/adr/0028-locked-dependencies.md).
FROM python:3.12-slim AS build
WORKDIR /src
# `cpu`, or `cuda` for machines with an NVIDIA GPU: docker compose build --build-arg TORCH=cuda
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv && python -m venv /build
COPY requirements requirements
# Without looking for dependencies: what is not locked is not installed, and `pip check` below finds what is missing.
RUN /venv/bin/pip install --no-deps --require-hashes -r requirements/torch-${TORCH}.txt
RUN /venv/bin/pip install --no-deps --require-hashes -r requirements/service.txt
RUN /build/bin/pip install --no-deps --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY drtl_client drtl_client
COPY worker worker
COPY ml ml
COPY migrations migrations
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /venv/bin/pip install --no-deps --no-index /dist/*.whl \
 && /venv/bin/pip check \
 && /venv/bin/pip uninstall --yes pip

FROM python:3.12-slim
# torch's CPU kernels need the OpenMP run time, which the slim image leaves out.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --no-create-home --home-dir /nonexistent --uid 10001 drtl && install --directory --owner drtl /blobs
COPY --from=build /venv /venv
# Nothing is written but blobs and what is in /tmp: the root may be read-only, and no home is needed.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
VOLUME /blobs
EXPOSE 8000
CMD ["python", "-m", "app.server", "--host", "0.0.0.0", "--port", "8000"]
