"""Simulate a server 60 ms away with a TUN device that delays every packet.

Not every kernel has `netem`; this needs only TUN and root. The delay applies to a real
TCP connection (handshake, slow start, windows), unlike a proxy, which would terminate
it. The device is in the network namespace of one process and disappears with it; the
machine's own network is not changed.

Packets to PEER go through the TUN device to `relay`, which swaps the two addresses and
returns each packet half a round trip later: the kernel sees a packet from PEER to HERE.
The checksums in the headers stay valid, as they do not depend on the order of the
addresses.
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
CONNECTIONS = 8  # to measure the throughput of the path
PROBE = 128 * 1024**2  # bytes for each of them

# Source: linux/if_tun.h, linux/virtio_net.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
# the device does checksums and segmentation: the kernel passes up to 64 KiB at once
_OFFLOAD = 0x1 | 0x2
_VNET = 10  # bytes of virtio_net_hdr before the IP header, returned unchanged
_SOURCE = _VNET + 12  # offset of the IPv4 source address; the destination follows
_LARGEST = _VNET + 65535


class Far:
    """A network namespace that contains the long path. Use `with`.

    Attributes:
        prefix: the start of a command line that runs in the namespace.
    """

    def __enter__(self) -> Far:
        if os.geteuid():
            raise RuntimeError("a network namespace of its own needs root")
        command = ["unshare", "--net", sys.executable, __file__]
        # it exits at the end of its stdin, so also when the benchmark is killed
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
        """Measure the throughput of the path alone; return it as a sentence."""
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
        for one in [subprocess.Popen(command) for _ in range(CONNECTIONS)]:
            one.wait()
        elapsed = time.perf_counter() - start
        share = (self._busy_s() - busy) / elapsed
        rate = CONNECTIONS * PROBE / elapsed / 1e6
        return (
            "The long path is a TUN device in a network namespace that "
            f"delays each packet by {RTT_S / 2:.3f} s; "
            f"{CONNECTIONS} curl together get {rate:.0f} MB/s through it, "
            f"while it takes {share:.0%} of a core."
        )

    def _busy_s(self) -> float:
        times = psutil.Process(self._popen.pid).cpu_times()
        return times.user + times.system

    def __exit__(self, *_: object) -> None:
        self._popen.communicate(timeout=10)


def open_tun() -> int:
    """Create the device in the namespace of this process, with an address, up."""
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
    """Return every packet after the delay, until stdin ends."""
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
        for _ in range(32):  # then send those that are due
            packet = os.read(tun, _LARGEST)
            if packet[_VNET] >> 4 == 4:  # the kernel also tries IPv6
                waiting.append((time.monotonic() + delay_s, packet))
    except BlockingIOError:
        pass


if __name__ == "__main__":
    device = open_tun()
    print("ready", flush=True)
    relay(device, RTT_S / 2)
