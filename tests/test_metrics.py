"""Labels stay in their sets, whatever is counted; a count costs next to nothing."""

from __future__ import annotations

import time

from prometheus_client import REGISTRY

from jupyter_sandbox import metrics


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_label_from_inside_a_sandbox_makes_no_series():
    before = value("jupyter_sandbox_calls_total", tool="other", code="other")
    for number in range(50):
        metrics.count_call(f"tool{number}", f"code{number}", None)
    metrics.count_egress({"verdict": "hostile", "up_bytes": 1})
    metrics.count_refusal("anything")
    assert value("jupyter_sandbox_calls_total", tool="other", code="other") == before + 50
    shown = {
        sample.labels.get(label)
        for family in REGISTRY.collect()
        if family.name.startswith("jupyter_sandbox_")
        for sample in family.samples
        for label in ("tool", "code", "reason", "verdict")
    }
    assert shown <= {None, "other"} | metrics.TOOLS | metrics.CODES | metrics.REASONS | (
        metrics.VERDICTS
    )


def test_a_line_of_the_egress_log_counts_its_verdict_and_bytes():
    up = value("jupyter_sandbox_egress_bytes_total", direction="up")
    denied = value("jupyter_sandbox_egress_decisions_total", verdict="deny")
    metrics.count_egress({"verdict": "deny", "up_bytes": 7, "down_bytes": 0})
    metrics.count_egress({"left_out": 40})
    assert value("jupyter_sandbox_egress_bytes_total", direction="up") == up + 7
    assert value("jupyter_sandbox_egress_decisions_total", verdict="deny") == denied + 1


def test_counting_a_call_costs_microseconds():
    best = min(_seconds_of(200) for _ in range(20))
    assert best < 0.0005  # of some 3 ms that a warm call takes


def _seconds_of(calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        metrics.count_call("bash", "ok", 0.003)
    return (time.perf_counter() - started) / calls
