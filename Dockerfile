# One target per image:  docker build --target operator|trainer|server -t dreambooth/<target>:0.1.0 .
#
# Layers, from the slowest to change to the fastest: base system, pinned dependencies, the project's own code. trainer and
# server share one dependency layer, so a node holds torch once. A change of code changes one layer of a few hundred KB.
#
# --build-arg COMPILER=g++ for those who want `training.compile` or `serving.compile`: a Debian package of a C++ compiler.
ARG COMPILER=
FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A name for the user: torch and mlflow ask for one. Nothing in the image belongs to it.
RUN echo 'dreambooth:x:65532:65532::/work:/usr/sbin/nologin' >> /etc/passwd && echo 'dreambooth:x:65532:' >> /etc/group \
    && python3 -m venv --without-pip /opt/venv

# uv, and what it resolves: never part of an image.
FROM base AS tools
# uv keeps no cache in a layer; a builder that mounts one at /root/.cache/uv says UV_NO_CACHE=false (local/ does).
ARG UV_NO_CACHE=true
# Extras of the images that hold torch, "gpu" or none.
ARG TORCH_EXTRAS=gpu
ENV UV_LINK_MODE=copy UV_PYTHON=/opt/venv/bin/python UV_PYTHON_DOWNLOADS=never UV_NATIVE_TLS=1
RUN python3 -m venv /opt/uv && /opt/uv/bin/python -m pip install -q --no-cache-dir --disable-pip-version-check "uv>=0.9"
COPY pyproject.toml requirements.lock /src/
# Each image's own list, so that an edit of pyproject.toml that changes no pin leaves the dependency layers as they are.
RUN cd /src && pins() { \
      /opt/uv/bin/uv pip compile -q pyproject.toml -c requirements.lock --generate-hashes --no-header --no-annotate --no-emit-index-url "$@"; } \
    && mkdir /pins && pins --extra operator -o /pins/operator.txt && pins --extra trainer --extra server ${TORCH_EXTRAS:+--extra $TORCH_EXTRAS} -o /pins/torch.txt

# The project itself, compiled, in a venv of the same path: its site-packages are laid over those of the dependencies.
FROM tools AS project
# .dockerignore leaves nothing but what the packages are made of.
COPY . /src/
RUN /opt/uv/bin/uv pip install -q --no-deps /src \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3.11/site-packages

FROM base AS operator-dependencies
ARG UV_NO_CACHE=true
COPY --from=tools /pins/operator.txt /pins/
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv \
    UV_LINK_MODE=copy UV_NATIVE_TLS=1 /opt/uv/bin/uv pip install -q --python /opt/venv/bin/python --compile-bytecode --require-hashes -r /pins/operator.txt

FROM base AS base-compiler
ARG COMPILER
RUN apt-get update && apt-get install -y --no-install-recommends $COMPILER && rm -rf /var/lib/apt/lists/*

FROM base${COMPILER:+-compiler} AS torch-dependencies
ARG UV_NO_CACHE=true
COPY --from=tools /pins/torch.txt /pins/
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv \
    UV_LINK_MODE=copy UV_NATIVE_TLS=1 /opt/uv/bin/uv pip install -q --python /opt/venv/bin/python --compile-bytecode --require-hashes -r /pins/torch.txt

FROM operator-dependencies AS operator
COPY --from=project /opt/venv/lib/python3.11/site-packages /opt/venv/lib/python3.11/site-packages
USER 65532:65532
ENTRYPOINT ["python", "-m", "dreambooth_operator"]

FROM torch-dependencies AS trainer
COPY --from=project /opt/venv/lib/python3.11/site-packages /opt/venv/lib/python3.11/site-packages
COPY --from=project /opt/venv/bin/dreambooth /opt/venv/bin/dreambooth
USER 65532:65532
ENTRYPOINT ["python", "-m", "dreambooth_trainer"]

FROM torch-dependencies AS server
COPY --from=project /opt/venv/lib/python3.11/site-packages /opt/venv/lib/python3.11/site-packages
COPY --from=project /opt/venv/bin/dreambooth /opt/venv/bin/dreambooth
USER 65532:65532
ENTRYPOINT ["python", "-m", "dreambooth_server"]
