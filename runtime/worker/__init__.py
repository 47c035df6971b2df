"""The worker: one confined process per loaded model, and the front-end's side of it."""

from typing import Final

NAME: Final = "sealift-worker"  # what ps calls one that was given a task
