# Two images: `docker build --target ray -t mana-dist:0.1.0 .` for the head and the workers of Ray clusters, and
# `docker build --target mlflow -t mana-mlflow:0.1.0 .` for the tracking server.
#
# CUDA comes with torch's wheels, in the versions that constraints.txt pins, and the driver from the node (NVIDIA's
# container toolkit): a CUDA base image would be a second copy of it, with a Python that nothing here was tested on.
# There is no compiler in the images: a stage of its own compiles what needs one, Triton's bridge to the driver and the
# one-hot attention for CPUs, which the wheel brings for every kind of processor.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS packages
WORKDIR /opt/mana
COPY pyproject.toml constraints.txt cluster/image/requirements.py ./
RUN python requirements.py all gcp > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt

FROM packages AS compiled
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY cluster/image/warm_triton.py ./
ENV TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu TRITON_CACHE_DIR=/opt/mana/cache/triton
RUN python warm_triton.py
COPY setup.py README.md LICENSE ./
COPY mana_dist mana_dist
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels .

FROM packages AS ray
# KubeRay's probes call wget. `ray up` copies files into containers with rsync; the head starts workers by SSH.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home mana
COPY --from=compiled --chown=mana /opt/mana/cache cache
COPY --from=compiled /opt/mana/wheels wheels
# Into /usr/local, and not into a virtual environment: KubeRay starts Ray from a login shell, which sets PATH anew.
RUN pip install --no-cache-dir --no-deps wheels/*.whl
# Where Triton's cache was made for; the path is part of its key, the library itself is found by the loader.
# Docker does not set HOME by the user, and `ray up` asks it where ~/.ray is.
ENV HOME=/home/mana \
    TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu \
    TRITON_CACHE_DIR=/opt/mana/cache/triton \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true
USER 1000

FROM ${PYTHON} AS mlflow
WORKDIR /opt/mana
COPY pyproject.toml constraints.txt cluster/image/requirements.py ./
RUN python requirements.py --only server > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt \
    && useradd --uid 1000 --create-home mlflow
ENV MLFLOW_DISABLE_TELEMETRY=true
USER 1000
CMD ["mlflow", "server", "--help"]
