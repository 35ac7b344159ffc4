from __future__ import annotations

from consumers.dead_letter import DeadLetter
from consumers.errors import Reason, Reject
from consumers.normalize import Normalized
from consumers.record import TopicPartition
from tests.builders import a_group, a_record
from worker.batch import Batch, BatchPolicy


def with_deltas(batch: Batch, *context_keys: str, offset: int = 0, now: float = 0.0) -> Batch:
    record = a_record(offset=offset)
    batch.add(record, Normalized([a_group(*context_keys)], [], len(context_keys)), now)
    return batch


def test_an_empty_batch_is_never_due() -> None:
    assert BatchPolicy(max_wait_s=0.1).trigger(Batch(), now=1e9) is None


def test_a_batch_is_due_when_it_holds_enough_deltas() -> None:
    batch = with_deltas(Batch(), "u1", "u2")

    assert BatchPolicy(max_deltas=3).trigger(batch, now=0.0) is None
    assert BatchPolicy(max_deltas=2).trigger(batch, now=0.0) == "count"


def test_a_batch_is_due_when_its_records_are_large_enough() -> None:
    batch = with_deltas(Batch(), "u1")

    assert BatchPolicy(max_bytes=3).trigger(batch, now=0.0) is None
    assert BatchPolicy(max_bytes=2).trigger(batch, now=0.0) == "bytes"


def test_a_batch_is_due_when_its_first_record_has_waited_long_enough() -> None:
    batch = with_deltas(with_deltas(Batch(), "u1", now=10.0), "u2", offset=1, now=10.4)

    assert BatchPolicy(max_wait_s=0.5).trigger(batch, now=10.49) is None
    assert BatchPolicy(max_wait_s=0.5).trigger(batch, now=10.5) == "age"


def test_records_without_deltas_fill_a_batch_too_so_that_their_offsets_are_committed() -> None:
    batch = Batch()
    for offset in range(3):
        record = a_record(offset=offset)
        batch.add(record, Normalized([], [], 0), 0.0)

    assert BatchPolicy(max_deltas=3).trigger(batch, now=0.0) == "count"
    assert batch.next_offsets == {TopicPartition("cohorts", 0): 3}


def test_a_dead_letter_moves_the_offset_behind_it() -> None:
    batch = Batch()
    record = a_record(b"{", offset=7)
    batch.add_dead_letter(DeadLetter(record, Reason.JSON_INVALID, "at byte 1"), 0.0)

    assert batch.next_offsets == {TopicPartition("cohorts", 0): 8}
    assert [letter.reason for letter in batch.dead_letters] == [Reason.JSON_INVALID]


def test_members_are_rejected_in_one_dead_letter_for_each_reason() -> None:
    batch = Batch()
    record = a_record()
    rejects = [
        Reject(1, Reason.CONTEXT_KEY_BLANK, "/users/1/user_id is blank"),
        Reject(4, Reason.CONTEXT_KEY_MISSING, "/users/4/user_id is missing"),
        Reject(6, Reason.CONTEXT_KEY_BLANK, "/users/6/user_id is blank"),
    ]
    batch.add(record, Normalized([a_group("u1")], rejects, 7), 0.0)

    assert [(letter.reason, letter.members) for letter in batch.dead_letters] == [
        (Reason.CONTEXT_KEY_BLANK, (1, 6)),
        (Reason.CONTEXT_KEY_MISSING, (4,)),
    ]
