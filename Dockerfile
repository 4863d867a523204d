# Not Alpine: the embedded store's binary needs glibc.
FROM python:3.13-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements ./requirements
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
 && python -m venv /opt/scheduler-api \
 && /opt/scheduler-api/bin/pip install --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
 && /opt/scheduler-api/bin/pip install --no-index --no-deps /opt/wheel/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Scheduler API" \
      org.opencontainers.image.description="Sends webhooks at a later time" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 scheduler \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data scheduler \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/scheduler-api /opt/scheduler-api
ENV PATH="/opt/scheduler-api/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# The start period is longer than the 10 minutes that a store may need to load its data; the first
# successful check ends it. --live: a restart does not help when an external store is down.
HEALTHCHECK --interval=5s --timeout=6s --start-period=11m \
  CMD ["scheduler-api", "healthcheck", "--live"]
CMD ["scheduler-api", "serve"]
