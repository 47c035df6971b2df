"""JSON bodies for the HTTP codecs: near a real request, and then broken in any way."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["user", "tool", "json", "text", "5m", "a/b:c", "image_url", "high"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "function", "name", "arguments", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def bodies(valid: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """``valid``, some of its fields replaced by any JSON value, or left out."""
    return st.fixed_dictionaries(
        {}, optional={key: st.just(value) | JSON for key, value in valid.items()}
    )
