"""What a process reached when it confined itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Process = Literal["worker", "front-end", "courier", "quantizer"]


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """The layers in force in one process. There is no report without an enforced filter.

    Attributes:
        process: Which of the policies.
        namespace: ``empty network namespace…``, ``refused: …``, or ``shared with the host``.
        landlock: ``ABI N``, ``unavailable`` or ``refused: …``.
        seccomp: ``enforced, N rules``.
        no_new_privs: Always true.
        capabilities: ``none``, or ``kept: …`` where the kernel would not take them.
    """

    process: Process
    namespace: str
    landlock: str
    seccomp: str
    no_new_privs: bool
    capabilities: str

    def __post_init__(self) -> None:
        if not self.seccomp.startswith("enforced") or not self.no_new_privs:
            raise ValueError("a process without seccomp and no_new_privs is not confined")

    def document(self) -> dict[str, object]:
        """For JSON: ``sealift doctor`` and the worker's greeting."""
        return {
            "process": self.process,
            "namespace": self.namespace,
            "landlock": self.landlock,
            "seccomp": self.seccomp,
            "noNewPrivs": self.no_new_privs,
            "capabilities": self.capabilities,
        }
