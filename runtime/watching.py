"""Who looks on while a request is answered: metrics, rate limits and the log of requests.

The one place where a request's way through the runtime is seen whole is between the scheduler's
turn and the worker's events. What looks on there is set per request, so that no handler has to
carry it, and what is added later is watched without its doing.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Protocol

from runtime.messages import Event, Task
from runtime.models import Model


class Watcher(Protocol):
    """Hears of one request. Called in the event loop, once per token at most: must not wait."""

    def resolved(self, model: Model) -> None:
        """This model was asked for.

        Raises:
            RateLimited: It may not answer now.
        """
        ...

    def granted(self) -> None:
        """The request's turn has come, its model is loaded."""
        ...

    def submitted(self, task: Task) -> None:
        """A task goes to the worker."""
        ...

    def happened(self, event: Event) -> None:
        """An event of such a task."""
        ...


WATCHER: Final[ContextVar[Watcher | None]] = ContextVar("watcher", default=None)
"""Of the request that is being answered; None outside of one."""
