"""Compare the service with calls in Python: python THIS_FILE MODEL IMAGE.

Each figure is the ratio of two things that are measured in turn: the median over
several rounds. The service runs in a process of its own, and so do its clients.
"""

import argparse
import http.client
import os
import statistics
import tempfile
import threading
import time
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
        connection = http.client.HTTPConnection(address)
        for _ in range(n_requests // CLIENTS):
            assert post(connection, data) == 200

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_requests / (time.perf_counter() - start)


def seconds(call, n):
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
    batch = np.stack([image] * 64)
    found = {name: [] for name in ("decode", "alone", "stored", "many", "memory")}
    with tempfile.TemporaryDirectory() as folder:
        plain, address = start([args.model])
        logging, with_log = start([args.model], "--state", folder)
        one = http.client.HTTPConnection(address)
        logged = http.client.HTTPConnection(with_log)
        for _ in range(args.rounds):
            call = seconds(lambda: inspect(image), 20)
            read = seconds(lambda: inspect(reader.read_bytes(data, "x").image), 20)
            served = seconds(lambda: post(one, data), 20)
            found["alone"].append(served / call)
            found["decode"].append(served / read)
            found["stored"].append(seconds(lambda: post(logged, data), 20) / read)
            per_second = len(batch) / seconds(lambda: score(batch), 1)
            found["many"].append(clients(address, data, len(batch)) / per_second)
        process = psutil.Process(plain.pid)
        used = [process.memory_info().rss]
        for _ in range(10):
            clients(address, data, args.requests // 10)
            used.append(process.memory_info().rss)
        for process in (plain, logging):
            process.terminate()
            process.wait()
    names = {
        "alone": ("one request / inspect of an array", ""),
        "decode": ("one request / decode and inspect", "≤ 1.3"),
        "stored": ("the same, with --state", ""),
        "many": (f"images a second, {CLIENTS} clients / score_samples", "≥ 0.9"),
    }
    shape = " x ".join(map(str, image.shape))
    print(f"{args.model.name}, {shape}, {os.environ.get('OMP_NUM_THREADS')} threads\n")
    print("| what | wanted | ratio |\n|---|---:|---:|")
    for key, (name, wanted) in names.items():
        print(f"| {name} | {wanted} | {statistics.median(found[key]):.2f} |")
    megabytes = [round(one / 1e6) for one in used]
    print(f"\nMemory over {args.requests} requests, MB: {megabytes}")


if __name__ == "__main__":
    main()
