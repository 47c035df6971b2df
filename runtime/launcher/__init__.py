"""The launcher: a small process that starts workers for a front-end which no longer can.

``sealift serve`` starts it before it confines itself. From then on the front-end asks it over one
socketpair, and it answers with the front-end's end of a fresh socketpair to a worker. It ends with
the front-end, and takes all workers along.

Every message is one packet of JSON:

- to the launcher: ``{"op": "spawn"}``, ``{"op": "kill", "pid": n}``;
- from it: ``{"spawned": pid}`` with one descriptor, ``{"failed": "why"}``, and unasked
  ``{"exited": pid, "status": n}``, ``n`` as in :attr:`subprocess.Popen.returncode`.

Spawns are answered in the order in which they were asked.
"""

from typing import Final

PACKET_BYTES: Final = 4096
