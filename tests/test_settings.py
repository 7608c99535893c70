"""Settings that make no sense end the start, and the message names the setting."""

from __future__ import annotations

import pytest
from traitlets import Float, Int, TraitError

from jupyter_sandbox.settings import (
    SandboxEgress,
    SandboxLifecycle,
    SandboxLimits,
    SandboxResources,
)

CLASSES = (SandboxEgress, SandboxLifecycle, SandboxLimits, SandboxResources)
NUMBERS = [
    pytest.param(each, name, id=f"{each.__name__}.{name}")
    for each in CLASSES
    for name, trait in each.class_traits(config=True).items()
    if isinstance(trait, (Int, Float))
]


def refusal(cls, name, value) -> str:
    with pytest.raises(TraitError) as refused:
        cls(**{name: value})
    return str(refused.value)


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_no_number_is_below_zero(cls, name):
    assert f"{cls.__name__}.{name} must " in refusal(cls, name, -1)


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_the_default_of_each_number_is_one_that_may_be_set(cls, name):
    default = cls.class_traits()[name].default_value
    assert getattr(cls(**{name: default}), name) == default


@pytest.mark.parametrize(
    ("cls", "name", "value", "said"),
    [
        (SandboxLimits, "output_bytes", 4095, "must be 4096 to 16777216"),
        (SandboxLimits, "output_bytes", 16777217, "must be 4096 to 16777216"),
        (SandboxLimits, "upload_bytes", 0, "must be more than 0"),
        (SandboxLimits, "calls_per_minute", -1, "must not be negative"),
        (SandboxResources, "disk_bytes", 2**24 - 1, "must be at least 16777216"),
        (SandboxResources, "disk_entries", 999, "must be at least 1000"),
        (SandboxResources, "cpus", 0, "must be more than 0"),
        (SandboxLifecycle, "suspend_seconds", 59, "must be 0 (never) or 60 to 316224000"),
        (SandboxLifecycle, "warm_pool_size", 1001, "must be 0 to 1000"),
        (SandboxLifecycle, "reap_seconds", 4, "must be 5 to 3600"),
        (SandboxLifecycle, "memory_stalled_percent", 101, "must be 0 to 100"),
        (SandboxEgress, "allow_cidrs", ["inside"], "'inside' is not a network"),
        (SandboxEgress, "presets", ["all"], "'all' is none of"),
    ],
)
def test_the_message_says_what_may_be_set(cls, name, value, said):
    message = refusal(cls, name, value)
    assert f"{cls.__name__}.{name}" in message
    assert said in message
