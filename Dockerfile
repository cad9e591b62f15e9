# The package with the extras that .venv has, and a project of it in /project; see docs/platforms.md.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# MulticoreTSNE is built from source.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH UV_LINK_MODE=copy UV_NO_CACHE=1
# Libraries change less often than sources, so they are a layer of their own.
COPY requirements.lock pyproject.toml ./
RUN python -m venv /opt/venv && pip install --no-cache-dir --constraint requirements.lock uv
# cpu, or cuda for a GPU: PyTorch comes with CUDA where it is not told otherwise.
ARG DEVICE=cpu
RUN case ${DEVICE} in \
        cpu) set -- --torch-backend cpu ;; \
        cuda) ;; \
        *) echo "DEVICE must be cpu or cuda, got ${DEVICE}" >&2; exit 2 ;; \
    esac \
    && uv pip install "$@" --constraint requirements.lock --requirement pyproject.toml \
        --extra heic --extra huggingface --extra onnx --extra viz
COPY README.md ./
COPY conf conf
COPY src src
RUN uv pip install --no-deps .

FROM python:${PYTHON}-slim-bookworm
# OpenMP, for MulticoreTSNE.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HOME=/project PYTHONUNBUFFERED=1
# Any user may run it, since that of the mounted folders often must.
RUN useradd --uid 1000 --home-dir /project --no-create-home supcon \
    && supcon_pipeline init /project \
    && chmod --recursive a+rwX /project
WORKDIR /project
USER supcon
VOLUME ["/project/conf", "/project/data"]
HEALTHCHECK --interval=5m --timeout=1m --start-period=1m CMD ["kedro", "registry", "list"]
CMD ["kedro", "run"]
