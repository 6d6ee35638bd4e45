"""Make the bundled pool: 8,000 pool + 2,000 test images of Fashion-MNIST as PNG bytes in Parquet.

    apt-get install dataset-fashion-mnist
    .venv/bin/python examples/fashion_mnist/make.py

It reads the *test* file of Debian's package (10,000 images, MIT licence, see LICENSE beside this file), so that
benchmarks on the 60,000 training images never meet these. The split is stratified by nothing: a seeded shuffle.
"""

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
SOURCE = Path("/usr/share/datasets/fashion-mnist")
HERE = Path(__file__).parent
POOL_ITEMS = 8_000
ROWS_PER_GROUP = 500  # small groups make reading one row cheap


def read_idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An IDX file of bytes (http://yann.lecun.com/exdb/mnist, "file formats")."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = data[3]
    shape = np.frombuffer(data, ">i4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write(name: str, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    table = pa.table(
        {
            "key": [f"{row:05d}.png" for row in rows],
            "class": [CLASSES[classes[row]] for row in rows],
            "image": [png(images[row]) for row in rows],
        }
    )
    path = HERE / f"{name}.parquet"
    pq.write_table(table, path, compression="zstd", row_group_size=ROWS_PER_GROUP)
    print(f"{path.name}: {table.num_rows} rows, {path.stat().st_size / 1e6:.1f} MB")


images = read_idx(next(SOURCE.glob("t10k-images*")))
classes = read_idx(next(SOURCE.glob("t10k-labels*")))
order = np.random.default_rng(0).permutation(len(images))
write("pool", np.sort(order[:POOL_ITEMS]))
write("test", np.sort(order[POOL_ITEMS:]))
