"""A fuzzer that reads the node's own description finds no answer that is not in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.e2e.node_processes import Plain, Running, running_introducer, running_node
from tests.thoroughness import times

from muniment.node.calls import CALLS, SHARES_TYPE
from muniment.node.introducer_api import CALLS as INTRODUCER_CALLS
from muniment.node.openapi import Call

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = settings(
    max_examples=times(3),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# The certificate is pinned by its key, which this client does not know how to do.
pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@schemathesis.serializer(SHARES_TYPE)
def _shares(context: object, value: object) -> bytes:
    """A body of share records, as the fuzzer imagines one."""
    return value if isinstance(value, bytes) else repr(value).encode()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_node(tmp_path_factory.mktemp("fuzz") / "node") as node:
        yield node


@pytest.fixture(scope="module")
def introducer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_introducer(tmp_path_factory.mktemp("fuzz") / "introducer") as introducer:
        yield introducer


def description(peer: Running) -> Any:
    with Plain(peer.address) as client:
        status, body = client.ask("GET", "/v1/openapi.json")
    assert status == 200
    schema = schemathesis.openapi.from_dict(json.loads(body))
    schema.config.update(base_url=f"https://{peer.address.host_port}")
    return schema


@pytest.fixture(scope="module")
def node_schema(node: Running) -> Any:
    return description(node)


@pytest.fixture(scope="module")
def introducer_schema(introducer: Running) -> Any:
    return description(introducer)


def fuzz(operation: Any, **how: Any) -> None:
    """Send what the description allows, and what it does not; whatever comes back must be in it."""
    sent = 0
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @EXAMPLES
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            nonlocal sent
            sent += 1
            answer = case.call(verify=False, timeout=20, **how)
            case.validate_response(answer, checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # a call without parameters cannot be asked wrongly
            send()
    assert sent


@pytest.mark.parametrize("call", CALLS, ids=[call.name for call in CALLS])
def test_the_node_answers_as_it_says(node_schema: Any, node: Running, call: Call) -> None:
    with Plain(node.address) as client:
        fuzz(node_schema[call.path][call.method], headers=client.headers())


@pytest.mark.parametrize("call", INTRODUCER_CALLS, ids=[call.name for call in INTRODUCER_CALLS])
def test_the_introducer_answers_as_it_says(introducer_schema: Any, call: Call) -> None:
    fuzz(introducer_schema[call.path][call.method])
