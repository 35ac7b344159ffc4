"""What each member of a consumer group says of itself, beside the topics that it reads.

Kafka keeps that with the group for as long as the member is in it, so whoever asks hears of every member, and of nobody
who has left.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata


class TellingAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc] # aiokafka has no types
    """Gives partitions out in turn, and has a saying, which is nothing to whoever gives them out."""

    def __init__(self, saying: bytes) -> None:
        self._saying = saying

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What the client sends when it joins."""
        return ConsumerProtocolMemberMetadata(self.version, list(topics), self._saying)


def saying_of(metadata: bytes) -> bytes:
    """What this member says; nothing where it is of an older version."""
    saying: bytes | None = ConsumerProtocolMemberMetadata.decode(BytesIO(metadata)).user_data
    return saying or b""
