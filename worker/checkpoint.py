"""The checkpoint: the next offsets that are safe to commit, because everything before them is durable."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.record import TopicPartition


class Checkpoint:
    """Next offsets by partition, for one generation of the group. Kept until Kafka has acknowledged them."""

    def __init__(self) -> None:
        self._safe: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}

    def advance(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Everything before these offsets is durable. Offsets never go back."""
        for tp, next_offset in next_offsets.items():
            self._safe[tp] = max(next_offset, self._safe.get(tp, 0))

    def safe(self) -> dict[TopicPartition, int]:
        """The next offsets behind everything that is durable."""
        return dict(self._safe)

    def pending(self) -> dict[TopicPartition, int]:
        """What is safe but not yet acknowledged by Kafka."""
        return {tp: offset for tp, offset in self._safe.items() if self._committed.get(tp, -1) < offset}

    def committed(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Kafka has these."""
        self._committed.update(next_offsets)
