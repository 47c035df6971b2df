"""A whole chat in a network of its own, with everything captured that any interface carries.

Run as ``python -m tests.support.captured HOME MODEL`` in a fresh network namespace. The network has
a way out, so that a packet could leave: a tunnel with the default route, on which one packet is sent
first, to show that the capture sees it. One JSON document on standard output.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import json
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.serving import Server, serving

TUNNEL: Final = "out0"
OUTSIDE: Final = "198.51.100.7"  # RFC 5737
_OURS: Final = "192.0.2.1"
_ETH_P_ALL: Final = 3  # linux/if_ether.h
_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_SIOCADDRT: Final = 0x890B  # linux/sockios.h
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_IFF_UP: Final = 1
_RTF_UP: Final = 1


def _address(text: str) -> bytes:
    """A ``sockaddr_in``."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))


def _up(control: socket.socket, name: str) -> None:
    request = struct.pack("16sH22x", name.encode(), 0)
    (flags,) = struct.unpack_from("16xH", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))


def _tunnel(control: socket.socket) -> Any:
    """An interface that leads out of the namespace, into this process."""
    # No neighbour discovery of the kernel's own: what is captured afterwards, somebody sent.
    for which in ("default", "all"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
    device = Path("/dev/net/tun").open("r+b", buffering=0)  # noqa: SIM115 - held while we run
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", TUNNEL.encode(), _IFF_TUN | _IFF_NO_PI))
    for call, text in ((_SIOCSIFADDR, _OURS), (_SIOCSIFNETMASK, "255.255.255.0")):
        fcntl.ioctl(control, call, struct.pack("16s16s8x", TUNNEL.encode(), _address(text)))
    _up(control, TUNNEL)
    name = ctypes.create_string_buffer(TUNNEL.encode())
    anywhere = _address("0.0.0.0")  # noqa: S104 - the default route
    # struct rtentry, linux/route.h: destination, gateway, mask, flags, …, device, …
    fields = (0, anywhere, anywhere, anywhere, _RTF_UP, 0, 0, 0, 0, ctypes.addressof(name), 0, 0, 0)
    route = struct.pack("@L16s16s16sHhLPhPLLH", *fields)
    fcntl.ioctl(control, _SIOCADDRT, route)
    return device


class Capture:
    """Counts packets by interface, and those on loopback that are not loopback's."""

    def __init__(self) -> None:
        self.packets: Counter[str] = Counter()
        self.strange: list[str] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            data, (name, protocol, *_) = self._socket.recvfrom(65_535)
            self.packets[name] += 1
            ends = _ends(protocol, data)
            if name != "lo" or not all(ipaddress.ip_address(end).is_loopback for end in ends):
                self.strange.append(f"{name}: {protocol:#06x} {' > '.join(ends)}")


def _ends(protocol: int, data: bytes) -> list[str]:
    """Source and destination of an IP packet; the unspecified address for anything else."""
    if protocol == 0x0800:
        return [socket.inet_ntoa(data[at : at + 4]) for at in (12, 16)]
    if protocol == 0x86DD:
        return [socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in (8, 24)]
    return ["::"]


def _wait(condition: Callable[[], bool]) -> bool:
    waiter = threading.Event()
    return any(condition() or waiter.wait(0.02) for _ in range(500))


def _chat(server: Server, model: str) -> dict[str, Any]:
    """Everything that talks: chats in all dialects, embeddings, management, the page."""
    ask = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    options = {"temperature": 0, "num_predict": 8, "num_ctx": 512}
    status, _, body = server.request("POST", "/api/chat", {**ask, "options": options})
    answer = "".join(json.loads(x)["message"]["content"] for x in body.splitlines())
    server.post("/v1/chat/completions", {**ask, "max_tokens": 4})
    server.post("/v1/messages", {**ask, "max_tokens": 4})
    server.post("/api/embed", {"model": model, "input": "hello"})
    server.post("/api/show", {"model": model})
    for path in ("/api/tags", "/api/ps", "/v1/models", "/readyz"):
        server.get(path)
    server.request("GET", "/ui/")
    return {
        "status": status,
        "answer": answer,
        "egress": server.get("/api/sealift/egress")["egress"],
    }


def main() -> None:
    """Set the network up, chat, and tell."""
    home, model = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _up(control, "lo")
        device = _tunnel(control)
    capture = Capture()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.sendto(b"control", (OUTSIDE, 9))
    seen = _wait(lambda: capture.packets[TUNNEL] == 1)
    before = list(capture.strange)
    with serving(Path(home), num_threads="1") as server:
        talked = _chat(server, model)
    device.close()
    document = {
        "control": seen and before,
        "strange": capture.strange[len(before) :],
        "packets": dict(capture.packets),
        **talked,
    }
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    main()
