"""What Prometheus gets to read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.digest import Digest
from registry.reference import Reference
from runtime.access.ratelimit import Limiter, Rates
from runtime.leases import Loaded
from runtime.messages import Finished, Job, Piece, Started, Text, WorkerReady
from runtime.models import Model
from runtime.server.metrics import Metrics, gauges
from runtime.server.record import Record, Texts
from schemas import limits
from schemas.errors import RateLimited

MODEL = Model(
    Reference.parse("library/tiny:1"),
    Digest.of(b"m"),
    Path("/nowhere"),
    1,
    datetime(2026, 1, 1, tzinfo=UTC),
)


def values(metrics: Metrics, loaded: tuple[Loaded, ...] = ()) -> dict[str, float]:
    body, content_type = metrics.render("", gauges(loaded, 3, metrics.started))
    assert content_type.startswith("text/plain")
    return {
        sample.name
        + "".join(f",{value}" for name, value in sorted(sample.labels.items()) if name != "le"): (
            sample.value
        )
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def record(metrics: Metrics, **fields: object) -> Record:
    return Record("r-1", "POST", "/api/chat", "127.0.0.1", metrics, Limiter(lambda: 0.0), **fields)  # type: ignore[arg-type]


def test_a_request_leaves_its_counts() -> None:
    metrics = Metrics()
    one = record(metrics, texts=Texts())
    one.resolved(MODEL)
    one.granted()
    one.submitted(Job(1, Text("say")))
    for event in (Started(1, 7, 5, 1), Piece(1, "a"), Piece(1, "b"), Piece(1, "")):
        one.happened(event)
    one.happened(Finished(1, "stop", 7, 3, 1, 1))
    one.status = 200
    one.settle()
    found = values(metrics)
    assert found["sealift_requests_total,/api/chat,200"] == 1
    assert found["sealift_request_seconds_count,/api/chat"] == 1
    assert found["sealift_tokens_total,prompt,tiny:1"] == 7
    assert found["sealift_tokens_total,cached,tiny:1"] == 5
    assert found["sealift_tokens_total,output,tiny:1"] == 3
    assert found["sealift_first_token_seconds_count,tiny:1"] == 1
    assert found["sealift_inter_token_seconds_count,tiny:1"] == 2
    assert found["sealift_queue_seconds_count,tiny:1"] == 1
    assert found["sealift_queue_waiting"] == 3
    assert found["sealift_models_loaded"] == 0
    assert found["sealift_resident_memory_bytes"] > 1e6
    line = one.entry()
    assert line.texts == {"prompt": "say", "answer": "ab"}
    assert line.fields["manifest"] == str(MODEL.digest)
    assert line.fields["outcome"] == "ok"


def test_what_was_broken_off_counts_by_what_was_seen() -> None:
    metrics = Metrics()
    limiter = Limiter(lambda: 0.0)
    one = record(metrics, model_rates=Rates(tokens=5))
    one.limiter = limiter
    one.resolved(MODEL)
    for event in (Started(1, 4, 0, 1), Piece(1, "a"), Piece(1, "b")):
        one.happened(event)
    one.code = "cancelled"
    one.settle()
    assert (one.outcome, one.tokens) == ("cancelled", 6)
    again = record(metrics, model_rates=Rates(tokens=5))
    again.limiter = limiter
    with pytest.raises(RateLimited, match="model tiny:1: 5 tokens per minute"):
        again.resolved(MODEL)


def test_gauges_of_loaded_models() -> None:
    ready = WorkerReady(1, 1, 128, 1000, 500)
    found = values(Metrics(), (Loaded(MODEL, ready, None, 2, 0),))
    assert found["sealift_models_loaded"] == 1
    assert found["sealift_requests_running,tiny:1"] == 2
    assert found["sealift_model_memory_bytes,weights,tiny:1"] == 1000
    assert found["sealift_model_memory_bytes,cache,tiny:1"] == 500


def test_models_without_end_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_MODELS", 2)
    metrics = Metrics()
    for number in range(10):
        metrics.model(f"m{number}").output.inc()
    found = {key: v for key, v in values(metrics).items() if key.endswith(("m0", "m1", "other"))}
    assert found["sealift_tokens_total,output,m0"] == 1
    assert found["sealift_tokens_total,output,other"] == 8


def test_openmetrics_where_it_is_asked_for() -> None:
    body, content_type = Metrics().render("application/openmetrics-text", [])
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
