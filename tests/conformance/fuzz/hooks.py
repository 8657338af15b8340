"""What schemathesis does not know of our schema: values of its scalars, and which answers are right."""

import schemathesis
from hypothesis import strategies as st
from schemathesis import graphql as gql
from schemathesis.graphql import nodes

# What scalars take, and what they must refuse: both are sent.
SCALARS = {
    "Credits": ["0", "1", "12.5", "1000000000", "0.000001", "-1", "1e3", "0.0000001", "", "٣"],
    "Points": ["0", "42.5", "100", "-1", "101"],
    "Percentage": ["0", "50", "100"],
    "SignedCredits": ["1", "-1"],
    "BigInt": ["0", "1", "9223372036854775807", "9223372036854775808", "-1", "x"],
    "DateTime": ["2026-11-23T12:00:00Z", "9999-12-31T23:59:59Z", "yesterday", ""],
    "Duration": ["PT1S", "P1D", "PT0S", "P9999999D", "-PT1S", "1s"],
    "EventCursor": ["ZTEuMA", "ZTEuOTk5", "x", ""],
}
for name, values in SCALARS.items():
    gql.scalar(name, st.sampled_from(values).map(nodes.String))
json = st.recursive(
    st.none().map(lambda _: nodes.Null) | st.booleans().map(nodes.Boolean) | st.integers(-1000, 1000).map(nodes.Int)
    | st.text(max_size=8).map(nodes.String),
    lambda inner: st.lists(inner, max_size=3).map(nodes.List),
    max_leaves=5,
)
gql.scalar("JSON", json)

# The codes of `docs/graphql.md` with which a request may fail; what is our own fault is not among them.
RIGHT = {
    "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "QUERY_LIMIT_EXCEEDED", "OPERATION_RESOLUTION_FAILURE", "BAD_USER_INPUT",
    "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "RATE_LIMITED",
}


@schemathesis.check
def every_error_is_one_of_ours(ctx, response, case):
    assert response.status_code < 500, f"status {response.status_code}"
    answer = response.json()
    for error in answer.get("errors", []):
        extensions = error.get("extensions", {})
        assert extensions.get("code") in RIGHT, f"{extensions.get('code')}: {error['message']}"
        assert extensions.get("requestId") and "retryable" in extensions, error
    assert "errors" in answer or answer["data"] is not None


@schemathesis.check
def what_the_schema_forbids_is_refused(ctx, response, case):
    if case.meta and case.meta.generation.mode.is_negative:
        assert response.json().get("errors"), "a request that the schema forbids was executed"
