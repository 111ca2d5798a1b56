"""Real writers, as training jobs have them: real_writers.py write DIR | check DIR.

`write` writes into DIR and prints one line a file, its SHA-256 and its path, as it reads there. `check` opens
what lies in DIR with the readers of the same libraries and compares it with what was meant.
"""

import hashlib
import os
import pickle
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

import numpy as np
import safetensors.numpy
import tensorboardX

ROWS, SCALARS, ROUNDS = 400, 120, 3


def weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"embed": (1024, 256), "layer.0": (512, 513), "layer.1": (300,), "scalar": (1,)}
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    made["moments"] = rng.standard_normal((2600, 1000))  # of several parts with the others
    return made


class TorchZip:
    """The calls of torch's PyTorchFileWriter: stored entries with zip64 sizes, data aligned to 64 bytes by an
    extra field of padding, everything in one pass, and the central directory behind it."""

    def __init__(self, path: str, stem: str) -> None:
        self.file, self.stem = open(path, "wb", buffering=0), stem
        self.at, self.directory = 0, []

    def put(self, data) -> None:
        view = memoryview(data).cast("B")
        self.at += len(view)
        while view:
            view = view[self.file.write(view) :]

    def record(self, name: str, data) -> None:
        data = memoryview(data).cast("B")
        full = f"{self.stem}/{name}".encode()
        start = self.at
        sizes = struct.pack("<HHQQ", 1, 16, len(data), len(data))
        used = start + 30 + len(full) + len(sizes) + 4
        padding = (64 - used % 64) % 64
        extra = sizes + b"FB" + struct.pack("<H", padding) + b"Z" * padding
        crc = zlib.crc32(data)
        common = struct.pack("<HHHHHIII", 45, 0x0800, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF)
        self.put(struct.pack("<I", 0x04034B50) + common + struct.pack("<HH", len(full), len(extra)))
        self.put(full)
        self.put(extra)
        assert self.at % 64 == 0
        self.put(data)
        far = struct.pack("<HHQQQ", 1, 24, len(data), len(data), start)
        entry = struct.pack("<IH", 0x02014B50, 45) + common
        entry += struct.pack("<HHHHHII", len(full), len(far), 0, 0, 0, 0, 0xFFFFFFFF) + full + far
        self.directory.append(entry)

    def close(self) -> None:
        start = self.at
        for entry in self.directory:
            self.put(entry)
        count, size, end = len(self.directory), self.at - start, self.at
        self.put(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start))
        self.put(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        self.put(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
        self.file.close()


def torch_save(path: str, tensors: dict[str, np.ndarray]) -> None:
    archive = TorchZip(path, os.path.basename(path).split(".")[0])
    index = {name: (str(array.dtype), array.shape, n) for n, (name, array) in enumerate(tensors.items())}
    archive.record("data.pkl", pickle.dumps(index, protocol=2))
    archive.record(".format_version", b"1")
    archive.record(".storage_alignment", b"64")
    archive.record("byteorder", b"little")
    for n, array in enumerate(tensors.values()):
        archive.record(f"data/{n}", np.ascontiguousarray(array))
    archive.record("version", b"3\n")
    archive.record(".data/serialization_id", b"0" * 40)
    archive.close()


def torch_load(path: str) -> dict[str, np.ndarray]:
    stem = os.path.basename(path).split(".")[0]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None, "a checksum of the archive is wrong"
        index = pickle.loads(archive.read(f"{stem}/data.pkl"))
        read = lambda dtype, shape, n: np.frombuffer(archive.read(f"{stem}/data/{n}"), dtype).reshape(shape)
        return {name: read(*place) for name, place in index.items()}


def same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys(), got.keys()
    for name, array in want.items():
        assert np.array_equal(got[name], array), f"{name} differs"


# --- each writer with its reader ---


def write_torch(root: str) -> None:
    for n in range(ROUNDS):
        folder = os.path.join(root, f"checkpoint-{n}")
        os.makedirs(folder)
        torch_save(os.path.join(folder, "model.pt"), weights(n))
        temporary = os.path.join(root, "last.pt.tmp")
        torch_save(temporary, weights(n))
        os.replace(temporary, os.path.join(root, "last.pt"))
        if n >= 2:  # as trainers keep the newest two
            shutil.rmtree(os.path.join(root, f"checkpoint-{n - 2}"))


def check_torch(root: str) -> None:
    same(torch_load(os.path.join(root, "checkpoint-2/model.pt")), weights(2))
    assert not os.path.exists(os.path.join(root, "checkpoint-0")), "a removed checkpoint is there"
    with zipfile.ZipFile(os.path.join(root, "last.pt")) as archive:
        assert archive.testzip() is None


def write_safetensors(root: str) -> None:
    safetensors.numpy.save_file(weights(7), os.path.join(root, "model.safetensors"), {"format": "np"})


def check_safetensors(root: str) -> None:
    same(safetensors.numpy.load_file(os.path.join(root, "model.safetensors")), weights(7))


def write_tensorboard(root: str) -> None:
    writer = tensorboardX.SummaryWriter(os.path.join(root, "events"), flush_secs=1)
    for step in range(SCALARS):
        writer.add_scalar("loss", 1.0 / (step + 1), step)
        if step % 10 == 0:
            writer.flush()
    writer.add_histogram("weights", weights(3)["layer.1"], SCALARS)
    writer.close()


def check_tensorboard(root: str) -> None:
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    folder = os.path.join(root, "events")
    (name,) = os.listdir(folder)
    with open(os.path.join(folder, name), "rb") as file:
        data = file.read()
    at, losses = 0, []
    while at < len(data):
        (size,), (crc,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        assert crc == masked(data[at : at + 8]), f"a record's length is wrong at {at}"
        body = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 12 + size)[0] == masked(body), f"a record at {at}"
        values = Event.FromString(body).summary.value
        losses += [value.simple_value for value in values if value.tag == "loss"]
        at += 16 + size
    assert len(losses) == SCALARS and losses[0] == 1.0, len(losses)


def write_numpy(root: str) -> None:
    np.save(os.path.join(root, "plain.npy"), weights(4)["moments"])
    np.savez(os.path.join(root, "several.npz"), **weights(5))
    mapped = np.lib.format.open_memmap(os.path.join(root, "mapped.npy"), "w+", np.float64, (700, 1000))
    for row in range(0, 700, 7):
        mapped[row] = row
        if row % 140 == 0:
            mapped.flush()
    mapped.flush()
    del mapped
    again = np.load(os.path.join(root, "mapped.npy"), mmap_mode="r+")
    again[350, 500] = -1
    again.flush()
    del again
    raw = np.memmap(os.path.join(root, "raw.bin"), np.uint32, "w+", shape=(300_000,))
    raw[:] = np.arange(300_000)
    raw.flush()


def check_numpy(root: str) -> None:
    assert np.array_equal(np.load(os.path.join(root, "plain.npy")), weights(4)["moments"])
    same(dict(np.load(os.path.join(root, "several.npz"))), weights(5))
    want = np.zeros((700, 1000))
    for row in range(0, 700, 7):
        want[row] = row
    want[350, 500] = -1
    assert np.array_equal(np.load(os.path.join(root, "mapped.npy")), want), "the mapped array differs"
    raw = np.fromfile(os.path.join(root, "raw.bin"), np.uint32)
    assert np.array_equal(raw, np.arange(300_000)), "the mapped file differs"


def write_sqlite(root: str) -> None:
    path = os.path.join(root, "runs.sqlite")
    base = sqlite3.connect(path)
    mode = base.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    assert mode == "wal", f"SQLite fell back to {mode}"
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE run (step INTEGER PRIMARY KEY, note TEXT, body BLOB)")
    reader = sqlite3.connect(path)
    for start in range(0, ROWS, 50):
        with base:
            rows = [(n, f"note {n}", bytes([n % 251]) * 900) for n in range(start, start + 50)]
            base.executemany("INSERT INTO run VALUES (?, ?, ?)", rows)
        seen = reader.execute("SELECT COUNT(*) FROM run").fetchone()[0]
        assert seen == start + 50, f"another connection sees {seen} rows"
    with base:
        base.execute("UPDATE run SET note = 'changed' WHERE step % 3 = 0")
    reader.close()
    base.close()


def check_sqlite(root: str) -> None:
    left = [name for name in os.listdir(root) if name.startswith("runs.sqlite")]
    assert left == ["runs.sqlite"], left
    base = sqlite3.connect(os.path.join(root, "runs.sqlite"))
    assert base.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    rows = base.execute("SELECT COUNT(*), SUM(note = 'changed') FROM run").fetchone()
    assert rows == (ROWS, (ROWS + 2) // 3), rows
    base.close()


def tree(root: str) -> None:
    rng = np.random.default_rng(9)
    for n in range(40):
        os.makedirs(os.path.join(root, f"d{n % 4}"), exist_ok=True)
        with open(os.path.join(root, f"d{n % 4}", f"größe-{n}"), "wb") as file:
            file.write(rng.bytes(int(rng.integers(0, 60_000))))


def write_tar(root: str) -> None:
    with tempfile.TemporaryDirectory() as local:
        tree(local)
        archive = os.path.join(root, "logs.tar")
        run = lambda *words: subprocess.run(["tar", *words], check=True)
        run("-cf", archive, "-C", local, "d0", "d1")
        run("-rf", archive, "-C", local, "d2", "d3")
        os.makedirs(os.path.join(root, "unpacked"))
        run("-xf", archive, "-C", os.path.join(root, "unpacked"))


def check_tar(root: str) -> None:
    with tempfile.TemporaryDirectory() as local, tempfile.TemporaryDirectory() as opened:
        tree(local)
        subprocess.run(["tar", "-xf", os.path.join(root, "logs.tar"), "-C", opened], check=True)
        for other in (opened, os.path.join(root, "unpacked")):
            subprocess.run(["diff", "-r", local, other], check=True)


WRITERS = ["torch", "safetensors", "tensorboard", "numpy", "sqlite", "tar"]


def main() -> None:
    do, root = sys.argv[1], sys.argv[2]
    for writer in WRITERS:
        place = os.path.join(root, writer)
        if do == "write":
            os.makedirs(place)
        globals()[f"{do}_{writer}"](place)
        print(f"{writer}: {do} done", file=sys.stderr, flush=True)
    if do == "write":
        for folder, _, files in sorted(os.walk(root)):
            for name in sorted(files):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                print(digest, os.path.relpath(path, root))


if __name__ == "__main__":
    main()
