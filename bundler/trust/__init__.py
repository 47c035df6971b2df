"""Who signed what: keys and publishing on the connected side, verification in the gap.

The names of roles, targets and members are here and cost nothing to import; :mod:`.publisher` and
:mod:`.verifier` load TUF, so commands import them when they need them.
"""

from __future__ import annotations

from bundler.trust.names import (
    BUNDLE_ROLE,
    BUNDLE_TARGET,
    model_target,
    publisher_role,
)

__all__ = ["BUNDLE_ROLE", "BUNDLE_TARGET", "model_target", "publisher_role"]
