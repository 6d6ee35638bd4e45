#!/bin/sh
# Collects into a folder (default .whl) what `python -m benchmarks.gpu` needs and a bare machine lacks that has Python 3.12,
# torch, torchvision, timm, numpy, scipy, scikit-learn, pillow, pyarrow, fsspec, safetensors, charset-normalizer, rich and
# pytest with pytest-timeout. There: pip install --no-index --no-deps --target /tmp/site .whl/*.whl; PYTHONPATH=/tmp/site
set -eu
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "${1:-.whl}" \
  annotated-types==0.8.0 pydantic==2.14.4 pydantic-core==2.50.5 pydantic-settings==2.16.3 python-dotenv==1.2.4 \
  simplejpeg==1.9.0 structlog==26.1.0 typing-extensions==4.16.0 typing-inspection==0.4.5
