# Two targets: `service` (small, no torch) and `worker`. docker build --target service .
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN useradd --create-home shortlist && install -d -o shortlist /data /images
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
COPY worker ./worker
COPY migrations ./migrations
COPY shortlist_client ./shortlist_client

FROM base AS service
RUN pip install '.[audio,video]'
USER shortlist
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"
CMD ["shortlist", "serve"]

FROM base AS worker
# The default is what pip chooses (CUDA on Linux); a CPU-only image gives the CPU index of pytorch.org here.
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" torch torchvision; fi && pip install '.[worker,audio,video]'
USER shortlist
CMD ["shortlist", "worker"]
