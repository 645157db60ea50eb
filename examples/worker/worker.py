"""A worker without a port: does a job every second until it is told to stop."""

import signal
import threading

stop = threading.Event()


def finish(number, frame):
    print("worker: stopping after this job", flush=True)
    stop.set()


signal.signal(signal.SIGTERM, finish)
signal.signal(signal.SIGINT, finish)

print("worker: ready", flush=True)
job = 0
while not stop.wait(1):
    job += 1
    print(f"worker: job {job} done", flush=True)
print("worker: stopped", flush=True)
