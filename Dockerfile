# The shelfrank service on CPU: `docker build --tag shelfrank:cpu .`
# On NVIDIA GPUs, not tried yet: `docker build --build-arg LOCK=gpu --build-arg DEVICE=cuda --tag shelfrank:cuda .`
# The last stage holds Python, the locked wheels, two packages of source, the native engine
# and the default bundle: no pip, no compiler.

FROM python:3.11-slim-bookworm AS environment
ARG LOCK=serve
COPY requirements/${LOCK}.lock /tmp/environment.lock
# --no-deps: the lock is complete.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --quiet --no-cache-dir --disable-pip-version-check \
      --no-deps --require-hashes --only-binary :all: --requirement /tmp/environment.lock
# What no request can reach, 27 MB: the wheels' own test suites and the runtime's conversion tools.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN find . -type d -name tests -prune -exec rm -rf {} + \
 && rm -rf onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers

# The native libraries: their flags say what they are compiled for, so any machine of the architecture may build them.
FROM python:3.11-slim-bookworm AS native
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends gcc libc6-dev > /dev/null
COPY service/native /native
RUN mkdir --parents /native/built && python /native/build.py gcc

FROM python:3.11-slim-bookworm AS cpu
ARG DEVICE=cpu
LABEL org.opencontainers.image.title="shelfrank" \
      org.opencontainers.image.description="Product-search reranker, ${DEVICE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# The base image brings installers; a running service has no use for them.
RUN rm -rf /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/lib/python3.11/ensurepip \
      /usr/local/lib/python3.11/site-packages/*
COPY --from=environment /opt/venv /opt/venv
WORKDIR /app
COPY bundle bundle
COPY service service
COPY --from=native /native/built service/native/built
COPY models/default models/default
# Byte code is written now: the container's root is read-only and its user owns nothing.
RUN ["/opt/venv/bin/python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "bundle", "service"]
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SHELFRANK_DEVICE=${DEVICE} \
    SHELFRANK_HOST=0.0.0.0 \
    SHELFRANK_PORT=8000
USER 10001:10001
# The admin port, 9000, stays on the container's loopback until SHELFRANK_ADMIN_HOST says otherwise.
EXPOSE 8000
# Ready means: the bundle is verified and requests are taken. The port is that of process 1, flags included. Failing before that is expected during start-up.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["/opt/venv/bin/python", "-m", "service.health"]
ENTRYPOINT ["/opt/venv/bin/python", "-m", "service"]
