# wn-dqn without installing it. CPU by default; docs/install.md has the commands, also for a GPU.
#     docker build -t wn-dqn .
#     docker run --rm -v "$PWD/runs:/work/runs" wn-dqn train --config quick
FROM python:3.12-slim AS build
# Where PyTorch comes from: its CPU build, or the index of a CUDA version.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/wn-dqn
COPY constraints.txt ./
RUN /opt/wn-dqn/bin/pip install --no-cache-dir --constraint constraints.txt --index-url "${TORCH_INDEX}" \
    --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY agents agents
COPY wn_dqn wn_dqn
RUN /opt/wn-dqn/bin/pip install --no-cache-dir --constraint constraints.txt '.[minatar]'

FROM python:3.12-slim
# A C compiler makes training on a CPU about a tenth faster: see docs/speed.md.
# Versions are those of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/wn-dqn /opt/wn-dqn
# /work is also the home folder: compiled kernels are kept in its .cache, whatever the number of the user.
RUN useradd --uid 1000 --home-dir /work --no-create-home wn-dqn \
    && mkdir --parents /work/runs && chown --recursive 1000 /work && chmod 1777 /work /work/runs
ENV HOME=/work
WORKDIR /work
USER 1000
ENTRYPOINT ["/opt/wn-dqn/bin/wn-dqn"]
CMD ["--help"]
