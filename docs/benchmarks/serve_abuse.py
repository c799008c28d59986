"""Abuse the service: python THIS_FILE MODEL MODEL; MODELs are files of skad.

Fuzzed requests, slow and dropped connections, models that are replaced under load, and
kill -9: the service must stay alive, answer good images as before, lose no verdict that
it has answered, and keep its memory. The tests run the same with less.
"""

import argparse
import io
import json
import random
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")


def start(models, *options):
    """Start the service; return the process, and its host and port."""
    command = [sys.executable, "-m", "skad", "serve", *models, "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(list(map(str, command)), stderr=log)
        while process.poll() is None:
            time.sleep(0.05)
            log.seek(0)
            if found := re.search(r" at http://(\S+)\n", log.read()):
                return process, found[1]
        log.seek(0)
        raise RuntimeError(f"the service has not started: {log.read()}")


def picture(seed, name="PNG", side=32):
    """Make an image file of noise."""
    pixels = np.random.default_rng(seed).integers(90, 110, (side, side), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name)
    return file.getvalue()


def bomb(width, height):
    """Make a small PNG file that claims to be large, and is: of zeros."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body))
            + kind
            + body
            + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = zlib.compressobj(9)
    n_rows = min(height, 9_000_000 // width)  # the others are missing
    data = b"".join(rows.compress(bytes(width + 1)) for _ in range(n_rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", data + rows.flush()), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


BOMBS = (bomb(3000, 3000), bomb(30_000, 30_000), bomb(2**31 - 1, 2**31 - 1))


GOOD = (b"/v1/inspect?model=tiny", b"/v1/inspect?map=png&model=tiny2")
BAD = (b"/v1/inspect", b"/v1/inspect?model=%00", b"/%2e%2e/etc", b"/v1/images/x")
TARGETS = 5 * GOOD + BAD


def body(rng):
    """Return a body that is wrong in some way, or right."""
    file = bytearray(picture(rng.randrange(99), rng.choice(FORMATS)))
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 20, 5000)))
    if kind == 1:
        return bytes(file[: rng.randrange(len(file))])
    if kind == 2:
        for _ in range(rng.choice((1, 20))):
            file[rng.randrange(len(file))] = rng.randrange(256)
        return bytes(file)
    return rng.choice(BOMBS) if rng.random() < 0.4 else bytes(file)


def request(rng):
    """Return the bytes of a request that is wrong in some way, or right."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(1, 3000)) + b"\r\n\r\n"
    data, length = body(rng), None
    form = rng.random() < 0.3
    if form and rng.random() < 0.7:
        head = b'--xx\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
        data = head + data + rng.choice((b"\r\n--xx--\r\n", b"", b"\r\n--x"))
    kinds = (b"image/png", b"", b"text/html", rng.randbytes(9).hex().encode())
    kind = b"multipart/form-data; boundary=xx" if form else rng.choice(kinds)
    if rng.random() < 0.05:
        length = rng.choice((-1, 10**30, len(data) + 9, max(0, len(data) - 9)))
    target = rng.choice(TARGETS)
    more = b"X: " + b"x" * rng.choice((0, 0, 0, 0, 10_000, 200_000)) + b"\r\n"
    method = rng.choice(9 * (b"POST",) + (b"PUT", b"GET"))
    length = len(data) if length is None else length
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b"
    head += b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (method, target, more, kind, length) + data


def connect(address):
    """Open a connection."""
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def exchange(address, data):
    """Send bytes, and nothing more; return the status of the answer, 0 for none."""
    with connect(address) as link:
        try:
            link.sendall(data)
        except OSError:  # it was refused before all had come
            pass
        try:
            answer = link.recv(12)
        except OSError:
            answer = b""
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def fuzz(address, n, seed=0):
    """Send n wrong requests; return how often each status came."""
    rng = random.Random(seed)
    requests = [request(rng) for _ in range(n)]
    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(partial(exchange, address), requests))


def post(connection, data, model):
    """Send an image; return the answer."""
    connection.request("POST", f"/v1/inspect?model={model}", data)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def load(address, name, stop, verdicts, others):
    """Send images until told to stop, or the service is gone."""
    connection = HTTPConnection(address, timeout=30)
    for seed in range(10**9):
        if stop.is_set():
            break
        try:
            status, answer = post(connection, picture(seed % 50), name)
        except (OSError, HTTPException):
            break
        (verdicts if status == 200 else others).append(answer)
    connection.close()


def under_load(address, names, act):
    """Run something while clients send images; return verdicts, and other answers."""
    stop, verdicts, others = threading.Event(), [], []
    arguments = [(address, name, stop, verdicts, others) for name in 2 * list(names)]
    threads = [threading.Thread(target=load, args=some) for some in arguments]
    for thread in threads:
        thread.start()
    act()
    stop.set()
    for thread in threads:
        thread.join()
    return verdicts, others


def replace_models(files, sources, n, pause):
    """Replace model files in turn, and now and then by nonsense."""
    for i in range(n):
        for k, file in enumerate(files):
            part = Path(file).with_suffix(".part")
            if i % 3 == 2:
                part.write_bytes(b"nonsense")
            else:
                shutil.copyfile(sources[(i + k) % 2], part)
            part.rename(file)
        time.sleep(pause)


def kill_soon(process):
    """End a process as a crash does, after a second or two."""
    time.sleep(1 + random.random())
    process.kill()


def stored(folder):
    """Return the ids of the verdicts in the log."""
    with sqlite3.connect(Path(folder) / "verdicts.sqlite") as file:
        rows = file.execute("SELECT verdict FROM verdicts").fetchall()
    file.close()
    return {json.loads(row[0])["id"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs=2, type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--reloads", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suffix = args.models[0].suffix
        files = [Path(folder) / f"{name}{suffix}" for name in ("tiny", "tiny2")]
        for source, file in zip(args.models, files, strict=True):
            shutil.copyfile(source, file)
        state = Path(folder) / "state"
        options = ("--state", state, "--body-timeout", 2)
        process, address = start(files, *options)
        used = [psutil.Process(process.pid).memory_info().rss]
        for part in range(5):
            print("fuzzed", dict(fuzz(address, args.requests // 5, part)))
            used.append(psutil.Process(process.pid).memory_info().rss)
        act = partial(replace_models, files, args.models, args.reloads, 2.5)
        verdicts, others = under_load(address, ("tiny", "tiny2"), act)
        used.append(psutil.Process(process.pid).memory_info().rss)
        checksums = len({(one["model"], one["checksum"]) for one in verdicts})
        print(
            f"reloads: {len(verdicts)} verdicts, {checksums} models, others: {others}"
        )
        print("memory, MB:", [round(one / 1e6) for one in used])
        answered = {one["id"] for one in verdicts}
        process.kill()
        process.wait()
        for _ in range(args.kills):
            process, address = start(files, *options)
            verdicts, _ = under_load(
                address, ("tiny", "tiny2"), partial(kill_soon, process)
            )
            answered |= {one["id"] for one in verdicts}
            process.wait()
        lost = answered - stored(state)
        print(
            f"killed {args.kills + 1} times: {len(answered)} answered, {len(lost)} lost"
        )


if __name__ == "__main__":
    main()
