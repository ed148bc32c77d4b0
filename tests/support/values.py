"""Values for tests."""

from typing import get_args

from hypothesis import strategies as st

from gateway.settings.devices import Algorithm

ALGORITHMS = get_args(Algorithm)
"""The signatures of credentials that an operator can allow."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
"""Whatever JSON can say."""
