# Two images from one file:
#   docker build -t edgeseq .                                  consumer, learner, predictor
#   docker build -t edgeseq-predictor --target predictor .     the predictor and nothing it does not need
# The command picks the service: docker run edgeseq learner
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS source
# PyTorch without CUDA; an empty value takes the default index's build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Without a compiler the native engine is left out, and PyTorch serves.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/edgeseq
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY edgeseq_core edgeseq_core
COPY services services

FROM source AS build-predictor
RUN /opt/edgeseq/bin/pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[predictor]'

FROM source AS build-services
RUN /opt/edgeseq/bin/pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[learner,predictor]'

FROM python:${PYTHON_VERSION}-slim AS runtime
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin edgeseq
# Nothing writes to the root file system; /tmp is the only scratch, a tmpfs where the root is read-only.
ENV PATH=/opt/edgeseq/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EDGESEQ_HTTP__HOST=0.0.0.0
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["python", "-P", "-m", "edgeseq_services"]

FROM runtime AS predictor
COPY --from=build-predictor /opt/edgeseq /opt/edgeseq
EXPOSE 9103
CMD ["predictor"]

FROM runtime AS services
COPY --from=build-services /opt/edgeseq /opt/edgeseq
EXPOSE 9101 9102 9103
CMD ["consumer"]
