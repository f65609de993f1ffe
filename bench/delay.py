"""A server 60 ms away, on one machine: a network namespace with a TUN device that delays every packet.

The kernel's own `netem` is not built into every kernel; this needs only TUN and root. It is a real TCP
connection over a long path (handshake, slow start, windows), not a proxy that ends it. The namespace is a
process's own, so it vanishes with it, and nothing of the machine's network is touched.

What a process sends to PEER goes through the TUN device to `relay`, which swaps the two addresses and gives
it back half a round trip later: to the kernel it comes from PEER, to whoever listens on HERE. The sums
in the headers stay right, for they do not depend on the order of the addresses.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

import psutil

HERE, PEER = "10.66.0.1", "10.66.0.2"
RTT_S = 0.060
LANES, PROBE = (
    8,
    128 * 1024**2,
)  # connections and bytes of each, to see what the path carries

# Source: linux/if_tun.h, linux/virtio_net.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_OFFLOAD = (
    0x1 | 0x2
)  # checksums and segmentation are the device's: the kernel passes up to 64 KiB at once
_VNET = 10  # bytes of virtio_net_hdr before the IP header, given back as they came
_SOURCE = _VNET + 12  # of the IPv4 header; the destination follows
_LARGEST = _VNET + 65535


class Far:
    """A network namespace with the long path in it. Use `with`.

    Attributes:
        prefix: what a command line begins with to run in there.
    """

    def __enter__(self) -> Far:
        if os.geteuid():
            raise RuntimeError("a network namespace of its own needs root")
        command = ["unshare", "--net", sys.executable, __file__]
        # it ends when its stdin does, so also when the benchmark is killed
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._popen.stdout
        if self._popen.stdout.readline() != b"ready\n":
            self.__exit__()
            raise RuntimeError(
                "no network namespace with a TUN device can be made here"
            )
        self.prefix = ("nsenter", f"--net=/proc/{self._popen.pid}/ns/net")
        return self

    def carries(self, url: str) -> str:
        """What the path lets through, with nothing else in the way, in a sentence."""
        command = [
            *self.prefix,
            "curl",
            "-q",
            "-sS",
            "-r",
            f"0-{PROBE - 1}",
            "-o",
            os.devnull,
            url,
        ]
        start, busy = time.perf_counter(), self._busy_s()
        for one in [subprocess.Popen(command) for _ in range(LANES)]:
            one.wait()
        elapsed = time.perf_counter() - start
        share = (self._busy_s() - busy) / elapsed
        rate = LANES * PROBE / elapsed / 1e6
        return (
            "The long path is a TUN device in a network namespace that "
            f"delays each packet by {RTT_S / 2:.3f} s; "
            f"{LANES} curl together get {rate:.0f} MB/s through it, while it takes {share:.0%} of a core."
        )

    def _busy_s(self) -> float:
        times = psutil.Process(self._popen.pid).cpu_times()
        return times.user + times.system

    def __exit__(self, *_: object) -> None:
        self._popen.communicate(timeout=10)


def open_tun() -> int:
    """The device, up and with an address, in the namespace of this process."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"far", flags))
    fcntl.ioctl(tun, _TUNSETOFFLOAD, _OFFLOAD)
    for command in (
        "link set lo up",
        f"address add {HERE}/24 dev far",
        "link set far mtu 1500 txqueuelen 10000 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return tun


def relay(tun: int, delay_s: float) -> None:
    """Give every packet back after the delay, until stdin ends."""
    waiting: deque[tuple[float, bytes]] = deque()
    stdin = sys.stdin.fileno()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([tun, stdin], [], [], timeout)
        if stdin in readable:
            return
        if tun in readable:
            _take(tun, waiting, delay_s)
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            packet = waiting.popleft()[1]
            addresses = (
                packet[_SOURCE + 4 : _SOURCE + 8] + packet[_SOURCE : _SOURCE + 4]
            )
            os.writev(
                tun, (packet[:_SOURCE], addresses, memoryview(packet)[_SOURCE + 8 :])
            )


def _take(tun: int, waiting: deque[tuple[float, bytes]], delay_s: float) -> None:
    try:
        for _ in range(32):  # then those that are due have their turn
            packet = os.read(tun, _LARGEST)
            if packet[_VNET] >> 4 == 4:  # the kernel also tries IPv6
                waiting.append((time.monotonic() + delay_s, packet))
    except BlockingIOError:
        pass


if __name__ == "__main__":
    device = open_tun()
    print("ready", flush=True)
    relay(device, RTT_S / 2)
