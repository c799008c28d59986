"""Compare the service with calls in Python: python THIS_FILE MODEL IMAGE.

Each figure is the ratio of two things that are measured in turn: the median over
several rounds. The service runs in a process of its own, and so do its clients.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
from serve_abuse import start

import skad
from skad.images.decoding import reader_for

CLIENTS = 8


def post(connection, data):
    """Send an image; return the status."""
    connection.request("POST", "/v1/inspect", data)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def clients(address, data, n_requests):
    """Send so many requests from some clients at once; return images a second."""

    def send():
        connection = HTTPConnection(address)
        for _ in range(n_requests // CLIENTS):
            assert post(connection, data) == 200

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_requests / (time.perf_counter() - start)


def seconds(call, n=15):
    """Return the median of the times of some calls."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="for the memory")
    args = parser.parse_args()
    data = args.image.read_bytes()
    if args.model.suffix == ".onnx":
        from skad.runtime import Inspector

        inspector = Inspector(args.model)
        reader = reader_for(inspector.metadata.image_shape)
        inspect, score = inspector.inspect, inspector.inspect_batch
    else:
        detector = skad.load(args.model)
        reader = reader_for(detector.image_shape_in_)
        score = detector.score_samples

        def inspect(image):
            return detector.inspect(image[None])

    image = reader.read_bytes(data, "x").image
    with tempfile.TemporaryDirectory() as folder:
        services = [start([args.model]), start([args.model], "--state", folder)]
        try:
            shape = " x ".join(map(str, image.shape))
            threads = os.environ.get("OMP_NUM_THREADS", "all")
            print(f"{args.model.name}, {shape}, OMP_NUM_THREADS={threads}\n")
            measure(services, inspect, score, reader, data, args.rounds)
            process, address = services[0]
            used = memory(psutil.Process(process.pid), address, data, args.requests)
            print(f"\nMemory over {args.requests} requests, MB: {used}")
        finally:
            for process, _ in services:
                process.terminate()
                process.wait()


def measure(services, inspect, score, reader, data, n_rounds):
    """Print the table of ratios."""
    plain, with_log = (address for _, address in services)
    image = reader.read_bytes(data, "x").image
    batch = np.stack([image] * 64)
    ratios = [[] for _ in range(4)]
    for _ in range(n_rounds):
        one, logged = HTTPConnection(plain), HTTPConnection(with_log)
        call = seconds(lambda: inspect(image))
        read = seconds(lambda: inspect(reader.read_bytes(data, "x").image))
        served = seconds(lambda: post(one, data))  # noqa: B023 (called at once)
        stored = seconds(lambda: post(logged, data))  # noqa: B023
        start = time.perf_counter()
        score(batch)
        per_second = len(batch) / (time.perf_counter() - start)
        many = clients(plain, data, len(batch)) / per_second
        found = (served / call, served / read, stored / read, many)
        for ratio, kept in zip(found, ratios, strict=True):
            kept.append(ratio)
    names = (
        "one request / inspect of an array | ",
        "one request / decode and inspect | ≤ 1.3",
        "one request with --state / decode and inspect | ",
        f"images a second, {CLIENTS} clients / score_samples | ≥ 0.9",
    )
    print("| what | wanted | ratio |\n|---|---:|---:|")
    for name, kept in zip(names, ratios, strict=True):
        print(f"| {name} | {statistics.median(kept):.2f} |", flush=True)


def memory(process, address, data, n_requests):
    """Return the memory of a process, in MB, after each tenth of some requests."""
    used = [process.memory_info().rss]
    for _ in range(10):
        clients(address, data, n_requests // 10)
        used.append(process.memory_info().rss)
    return [round(one / 1e6) for one in used]


if __name__ == "__main__":
    main()
