"""A moment of fuzzing of everything that parses bytes from inside; ``make fuzz`` takes longer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .fuzzing import CORPUS, TARGETS, search


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_from_inside_raise_anything_but_a_refusal(target):
    for seed in CORPUS[target]:
        TARGETS[target](seed)

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=300) | st.sampled_from(CORPUS[target]))
    def fuzz(data: bytes) -> None:
        TARGETS[target](data)

    fuzz()
    assert search(target, 0.2) > 10


def test_every_target_has_a_corpus_that_is_accepted():
    assert set(CORPUS) == set(TARGETS)
