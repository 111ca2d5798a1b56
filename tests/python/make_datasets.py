"""Writes tar shards and Parquet files as training sets have them: make_datasets.py DIR [SCALE].

Deterministic: the same call writes the same bytes.
"""

import io
import os
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def tar_shards(folder: str, shards: int, samples: int) -> None:
    rng = np.random.default_rng(7)
    for shard in range(shards):
        with tarfile.open(os.path.join(folder, f"shard-{shard:04d}.tar"), "w") as tar:
            for n in range(samples):
                key = f"{shard:04d}{n:06d}"
                image = rng.bytes(int(rng.integers(20_000, 160_000)))
                for ext, body in (("jpg", image), ("cls", str(n % 10).encode())):
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(body)
                    tar.addfile(info, io.BytesIO(body))


def parquet_files(folder: str, files: int, rows: int) -> None:
    rng = np.random.default_rng(8)
    for part in range(files):
        table = pa.table({
            "id": pa.array(np.arange(rows) + part * rows),
            "score": pa.array(rng.random(rows)),
            "tokens": pa.array([rng.integers(0, 50_000, 32).tolist() for _ in range(rows)]),
            "text": pa.array([rng.bytes(24).hex() for _ in range(rows)]),
        })
        pq.write_table(table, os.path.join(folder, f"part-{part:03d}.parquet"), row_group_size=rows // 4)


def main() -> None:
    root, scale = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for name in ("tar", "parquet"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    tar_shards(os.path.join(root, "tar"), 4, 60 * scale)
    parquet_files(os.path.join(root, "parquet"), 3, 8_000 * scale)


if __name__ == "__main__":
    main()
