"""What is left of a conversation that does not fit.

Ever shorter forms, the longest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from runtime.messages import Message

_CHARACTERS: Final = 8  # per token, more than text has: longer cannot fit
_STEP: Final = 0.9
_LEAST: Final = 32  # characters; of less nobody makes sense


def without_turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Without its oldest turns.

    System messages and the last message stay (Ollama's rule). What is left begins with a user's
    message where it can: many templates refuse anything else.
    """
    droppable = [i for i, m in enumerate(messages[:-1]) if m.role != "system"]
    results = []
    for count in range(1, len(droppable) + 1):
        gone = set(droppable[:count])
        left = [message for i, message in enumerate(messages) if i not in gone]
        first = next(message for message in left if message.role != "system" or message is left[-1])
        if first.role == "user" or count == len(droppable):
            results.append(left)
    return results


def without_beginning(messages: Sequence[Message], n_context: int) -> list[list[Message]]:
    """Without turns, and without the last message's beginning: the question tends to stand behind.

    Args:
        messages: The whole.
        n_context: Tokens that the model has room for.
    """
    *before, last = (without_turns(messages) or [list(messages)])[-1]
    left = min(len(last.content) - 1, n_context * _CHARACTERS)
    results = []
    while left >= _LEAST:
        gone = len(last.content) - left
        images = tuple(replace(image, at=max(image.at - gone, 0)) for image in last.images)
        results.append([*before, replace(last, content=last.content[-left:], images=images)])
        left = int(left * _STEP)
    return results
