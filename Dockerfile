# qrun and qplan in a container, for the CPU unless told otherwise:
#   docker build -t qdit4sr .
#   docker build -t qdit4sr:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=hub,prompts,web
RUN apt-get update \
    && apt-get install --no-install-recommends -y g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/qdit4sr
ENV PATH=/opt/qdit4sr/bin:$PATH
RUN pip install --no-cache-dir "torch>=2.11" --index-url "$TORCH_INDEX"
COPY . /source
RUN pip install --no-cache-dir "/source[$EXTRAS]"

FROM python:3.12-slim
COPY --from=build /opt/qdit4sr /opt/qdit4sr
ENV PATH=/opt/qdit4sr/bin:$PATH
RUN useradd --uid 1000 --create-home qdit4sr
USER 1000
WORKDIR /data
ENTRYPOINT ["qrun"]
CMD ["--help"]
