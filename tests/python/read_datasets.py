"""Reads what make_datasets.py wrote, as a training job would, and prints a digest of each thing read.

read_datasets.py DIR [EPOCHS]: tarfile streams over the shards, then pyarrow's dataset scanner, its
memory-mapped reader and a column projection over the Parquet files.
"""

import hashlib
import os
import sys
import tarfile

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq


def tar_digest(folder: str, mode: str) -> str:
    digest = hashlib.blake2b()
    for name in sorted(os.listdir(folder)):
        with tarfile.open(os.path.join(folder, name), mode) as tar:
            for member in tar:
                body = tar.extractfile(member).read()
                digest.update(member.name.encode() + b"\0" + body)
    return digest.hexdigest()


def table_digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.blake2b(sink.getvalue()).hexdigest()


def main() -> None:
    root, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    tars, parquet = os.path.join(root, "tar"), os.path.join(root, "parquet")
    files = sorted(os.path.join(parquet, name) for name in os.listdir(parquet))
    for _ in range(epochs):
        print("tar stream", tar_digest(tars, "r|"))
        print("tar seek", tar_digest(tars, "r:"))
        print("dataset", table_digest(ds.dataset(files).to_table()))
        print("mapped", table_digest(pa.concat_tables(pq.read_table(f, memory_map=True) for f in files)))
        print("columns", table_digest(pq.read_table(files[0], columns=["score", "text"])))


if __name__ == "__main__":
    main()
