# The gateway, small and without root.
#   docker build -t tidegate .
#   docker run -p 8080:8080 -p 127.0.0.1:9090:9090 -v tidegate:/data tidegate
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/tidegate
ENV PATH=/opt/tidegate/bin:$PATH
COPY config/requirements/run.txt config/requirements/run.txt
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r config/requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY clients/python clients/python
COPY loadtest loadtest
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation ./clients/python .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --create-home tidegate
COPY --from=build /opt/tidegate /opt/tidegate
COPY config/gateway.toml /etc/tidegate/gateway.toml
ENV PATH=/opt/tidegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_SERVER__HOST=0.0.0.0 \
    TIDEGATE_OPS__HOST=0.0.0.0 \
    TIDEGATE_NATS__DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
# Healthy is not ready: a node whose JetStream is away keeps its devices and must not be restarted.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/healthz', timeout=2)"]
# SIGTERM drains; allow for it: docker stop --time 60.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidegate"]
CMD ["serve", "--config", "/etc/tidegate/gateway.toml"]
