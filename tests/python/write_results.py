"""A job that writes and says what was acknowledged: write_results.py ROOT LOG --seed N --steps N [...].

Before each step a line in LOG (outside the mount) says what the step wants, after it that it was
acknowledged, or which error it got. A content is known by its SHA-256. Every content is made of the
canary and of a mark of its own, in pieces of 64 bytes, so no two are alike anywhere.
"""

import argparse
import errno
import hashlib
import json
import os
import random
import time


def content(canary: bytes, mark: str, size: int) -> bytes:
    piece = canary + hashlib.sha256(mark.encode()).digest()
    return (piece * (size // len(piece) + 1))[:size]


class Job:
    def __init__(self, args) -> None:
        self.root, self.canary = args.root, bytes.fromhex(args.canary)
        self.dice, self.large = random.Random(args.seed), args.large
        self.log = os.open(args.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.held: dict[str, bytes] = {}  # what is acknowledged under each name
        self.count = 0

    def say(self, phase: str, step: dict, **more) -> None:
        os.write(self.log, (json.dumps({"phase": phase, **step, **more}) + "\n").encode())

    def step(self, step: dict, work) -> bool:
        """Runs one step between its two lines; whether it was acknowledged."""
        self.say("begin", step)
        try:
            work()
        except OSError as error:
            more = {"errno": error.errno, "name": errno.errorcode.get(error.errno, "?")}
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and step["do"] == "put":
                # A write that did not fit leaves what fitted, and its close brings that home.
                more["left"] = self.left(step["path"])
            self.say("fail", step, **more)
            # Nobody knows what it is now: it is left alone from here on.
            for name in (step["path"], step.get("to")):
                self.held.pop(name, None)
            return False
        self.say("done", step)
        return True

    def left(self, path: str) -> str | None:
        try:
            with open(self.at(path), "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        except OSError:
            return None

    def put(self, path: str, body: bytes, work) -> bool:
        sha = hashlib.sha256(body).hexdigest()
        done = self.step({"do": "put", "path": path, "sha": sha}, work)
        if done:
            self.held[path] = body
        return done

    def fresh(self, kind: str, size: int) -> tuple[str, bytes]:
        self.count += 1
        folder = self.dice.choice(["", "a/", "a/b/", "größe/"])
        path = f"{folder}{kind}-{self.count:04d}"
        os.makedirs(os.path.dirname(os.path.join(self.root, path)), exist_ok=True)
        return path, content(self.canary, path, size)

    def at(self, path: str) -> str:
        return os.path.join(self.root, path)

    # --- steps ---

    def small(self) -> None:
        path, body = self.fresh("small", self.dice.randint(0, 200_000))

        def work():
            with open(self.at(path), "xb", buffering=0) as file:
                write_all(file, body)

        self.put(path, body, work)

    def synced(self) -> None:
        path, body = self.fresh("synced", self.dice.randint(1, 5 << 20))

        def work():
            with open(self.at(path), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())

        self.put(path, body, work)

    def big(self) -> None:
        """Several parts; made durable halfway, and again at its end."""
        path, body = self.fresh("large", self.large + self.dice.randint(1, 3 << 20))
        half = self.dice.randint(1, len(body) - 1)
        try:
            file = open(self.at(path), "wb", buffering=0)
        except OSError as error:
            print(f"open {path}: {error}", flush=True)
            return

        def first():
            write_all(file, body[:half])
            os.fsync(file.fileno())

        def second():
            write_all(file, body[half:])
            file.close()

        try:
            if self.put(path, body[:half], first):
                self.put(path, body, second)
        finally:
            try:
                file.close()
            except OSError:
                pass

    def checkpoint(self) -> None:
        """A temporary name, then over the name that readers know."""
        path, body = self.fresh("checkpoint", self.dice.randint(1, 3 << 20))
        temporary = f"{path}.tmp"

        def work():
            with open(self.at(temporary), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())

        if self.put(temporary, body, work):
            self.rename(temporary, "latest")

    def rename(self, path: str, to: str) -> None:
        body = self.held[path]
        step = {"do": "rename", "path": path, "to": to}
        if self.step(step, lambda: os.rename(self.at(path), self.at(to))):
            self.held.pop(path, None)
            self.held[to] = body

    def append(self) -> None:
        known = [path for path in self.held if "log-" in path]
        if known and self.dice.random() < 0.8:
            path = self.dice.choice(known)
            line = content(self.canary, f"{path} {self.count}", self.dice.randint(64, 9_000))
            self.count += 1
        else:
            path, line = self.fresh("log", 5_000)
        body = self.held.get(path, b"") + line

        def work():
            with open(self.at(path), "ab", buffering=0) as file:
                write_all(file, line)
                os.fsync(file.fileno())

        self.put(path, body, work)

    def scribble(self) -> None:
        """Some bytes in the middle of what is there already."""
        known = [path for path, body in self.held.items() if len(body) > 1000 and "log-" not in path]
        if not known:
            return self.synced()
        path = self.dice.choice(sorted(known))
        body = bytearray(self.held[path])
        self.count += 1
        start = self.dice.randrange(len(body) - 500)
        patch = content(self.canary, f"patch {self.count}", self.dice.randint(1, 500))
        body[start : start + len(patch)] = patch

        def work():
            with open(self.at(path), "r+b", buffering=0) as file:
                file.seek(start)
                write_all(file, patch)
                os.fdatasync(file.fileno())

        self.put(path, bytes(body), work)

    def unlink(self) -> None:
        if len(self.held) < 8:
            return
        path = self.dice.choice(sorted(self.held))
        if self.step({"do": "unlink", "path": path}, lambda: os.unlink(self.at(path))):
            self.held.pop(path, None)

    def reread(self) -> None:
        """What was acknowledged is what is read."""
        if self.held:
            path = self.dice.choice(sorted(self.held))
            with open(self.at(path), "rb") as file:
                assert file.read() == self.held[path], f"{path} reads as something else"

    def run(self, steps: int, seconds: float, pause: float) -> None:
        until = time.monotonic() + seconds if seconds else None
        kinds = [self.small] * 4 + [self.synced] * 3 + [self.checkpoint] * 3 + [self.append] * 4
        kinds += [self.scribble] * 3 + [self.unlink, self.reread] + [self.big] * (2 if self.large else 0)
        for n in range(steps if not until else 1 << 30):
            if until and time.monotonic() > until:
                break
            try:
                self.dice.choice(kinds)()
            except OSError as error:
                # Of what is no step: a folder that cannot be made, a file that cannot be opened.
                print(f"step {n}: {error}", flush=True)
            time.sleep(pause * self.dice.random())


def write_all(file, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[file.write(view[: 1 << 20]) :]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("log")
    parser.add_argument("--canary", default="00" * 32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--pause", type=float, default=0)
    parser.add_argument("--large", type=int, default=0)
    args = parser.parse_args()
    job = Job(args)
    job.run(args.steps, args.seconds, args.pause)
    print(f"wrote {job.count} files", flush=True)


if __name__ == "__main__":
    main()
