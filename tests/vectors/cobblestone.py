#!/usr/bin/env python3
"""Seals and opens Cobblestone-256 messages with PyPI `cryptography` >= 50: the second
implementation that Tidegate's sealed format is tested against, both ways.

One JSON object a line on standard input, one answer a line on standard output, in order:

    {"op": "seal", "key": HEX, "context": HEX, "plain": HEX}   ->  {"sealed": HEX}
    {"op": "open", "key": HEX, "context": HEX, "sealed": HEX}  ->  {"plain": HEX}
                                                               or  {"refused": true}

Key: 32 bytes. Context: any bytes. Salts are the library's own random ones. With arguments
instead of lines: `cobblestone.py seal KEY CONTEXT PLAIN`, `cobblestone.py open KEY CONTEXT SEALED`
(hexadecimal, "" for nothing), which prints one such answer; a refusal exits with 1.
"""

import json
import sys

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag


def seal(key: bytes, context: bytes, plain: bytes) -> dict:
    encryptor = Cobblestone256Encryptor(key, context)
    return {"sealed": (encryptor.update(plain) + encryptor.finalize()).hex()}


def open_sealed(key: bytes, context: bytes, sealed: bytes) -> dict:
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        return {"plain": (decryptor.update(sealed) + decryptor.finalize()).hex()}
    except (InvalidTag, ValueError):
        return {"refused": True}


def answer(op: str, key: str, context: str, data: str) -> dict:
    act = {"seal": seal, "open": open_sealed}[op]
    return act(bytes.fromhex(key), bytes.fromhex(context), bytes.fromhex(data))


def main() -> int:
    if len(sys.argv) == 5:
        reply = answer(*sys.argv[1:])
        print(json.dumps(reply))
        return 1 if "refused" in reply else 0
    if len(sys.argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    for line in sys.stdin:
        ask = json.loads(line)
        data = ask["plain" if ask["op"] == "seal" else "sealed"]
        print(json.dumps(answer(ask["op"], ask["key"], ask["context"], data)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
