"""What is left of a conversation that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from runtime.messages import Message

_CHARACTERS: Final = 8  # per token, more than text has: longer cannot fit
_STEP: Final = 0.9
_LEAST: Final = 32  # characters; of less nobody makes sense


def shortenings(messages: Sequence[Message], n_context: int) -> list[list[Message]]:
    """Ever shorter forms of a conversation, the longest first.

    First its oldest turns go: system messages and the last message stay (Ollama's rule), and what
    is left begins with a user's message where it can, as many templates refuse anything else. Then
    the last message loses its beginning: a question tends to stand at the end of a long text.

    Args:
        messages: The whole.
        n_context: Tokens that the model has room for.
    """
    shorter = _without_turns(messages)
    alone = shorter[-1] if shorter else list(messages)
    return shorter + _without_beginning(alone, n_context)


def _without_turns(messages: Sequence[Message]) -> list[list[Message]]:
    droppable = [i for i, m in enumerate(messages[:-1]) if m.role != "system"]
    results = []
    for count in range(1, len(droppable) + 1):
        gone = set(droppable[:count])
        left = [message for i, message in enumerate(messages) if i not in gone]
        first = next(message for message in left if message.role != "system" or message is left[-1])
        if first.role == "user" or count == len(droppable):
            results.append(left)
    return results


def _without_beginning(messages: list[Message], n_context: int) -> list[list[Message]]:
    *before, last = messages
    left = min(len(last.content) - 1, n_context * _CHARACTERS)
    results = []
    while left >= _LEAST:
        gone = len(last.content) - left
        images = tuple(replace(image, at=max(image.at - gone, 0)) for image in last.images)
        results.append([*before, replace(last, content=last.content[-left:], images=images)])
        left = int(left * _STEP)
    return results
