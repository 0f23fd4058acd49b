# The same two steps as on any machine: `make` builds .venv on first use.
#   docker build -t cxrcl . && docker run --rm --gpus all --shm-size 8g cxrcl make demo
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /cxrcl
COPY . .
RUN make .venv/.installed
CMD ["make", "demo"]
