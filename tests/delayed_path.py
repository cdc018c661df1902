"""A network path with a delay, for machines without netem: two tun devices, one of them in a network namespace of its own.

Usage: delayed_path.py NAMESPACE DEVICE SECONDS HERE THERE. Prints a line once the path is up, and ends when its standard input ends.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x1001
MTU = 9000  # as in a VPC


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN_WITHOUT_HEADER))
    return device


def main() -> None:
    namespace, device, delay, here, there = sys.argv[1:]
    seconds = float(delay)
    ends = tun(f"{device}h"), tun(f"{device}t")
    ip(f"netns add {namespace}")
    try:
        ip(f"link set {device}t netns {namespace}")
        ip(f"addr add {here}/30 dev {device}h")
        ip(f"link set {device}h mtu {MTU} txqueuelen 10000 up")
        ip(f"-n {namespace} addr add {there}/30 dev {device}t")
        ip(f"-n {namespace} link set {device}t mtu {MTU} txqueuelen 10000 up")
        print("up", flush=True)
        carry(ends, seconds)
    finally:
        ip(f"netns delete {namespace}")


def carry(ends: tuple[int, int], seconds: float) -> None:
    in_flight: deque[tuple[float, int, bytes]] = deque()
    while True:
        while in_flight and in_flight[0][0] <= time.monotonic():
            _, end, packet = in_flight.popleft()
            try:
                os.write(end, packet)
            except OSError:
                pass  # The packet is lost.
        wait = max(0.0, in_flight[0][0] - time.monotonic()) if in_flight else 1.0
        for ready in select.select([*ends, sys.stdin], [], [], wait)[0]:
            if ready is sys.stdin:
                return
            other = ends[1] if ready == ends[0] else ends[0]
            try:
                for _ in range(64):
                    in_flight.append((time.monotonic() + seconds, other, os.read(ready, 65536)))
            except BlockingIOError:
                pass


if __name__ == "__main__":
    main()
