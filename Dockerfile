# One image for every process of the service; docker-compose.yml says which command each runs.
FROM python:3.12-slim AS build
WORKDIR /src
# The CPU build of torch, unless told otherwise: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.11,<2.14"
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY drtl_client drtl_client
COPY worker worker
COPY ml ml
COPY migrations migrations
RUN pip install ".[s3]"

FROM python:3.12-slim
# torch's CPU kernels need the OpenMP run time, which the slim image leaves out.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 drtl && install --directory --owner drtl /blobs
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER drtl
WORKDIR /home/drtl
VOLUME /blobs
EXPOSE 8000
CMD ["python", "-m", "uvicorn", "--factory", "app.main:create_app", "--host", "0.0.0.0", "--port", "8000"]
