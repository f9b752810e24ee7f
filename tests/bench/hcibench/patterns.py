"""The patterns that every subject is measured with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    name: str
    random: bool
    write: bool
    block: int
    depth: int


PATTERNS = (
    Pattern("randwrite-4k-d1", True, True, 4096, 1),
    Pattern("randwrite-4k-d32", True, True, 4096, 32),
    Pattern("randread-4k-d1", True, False, 4096, 1),
    Pattern("randread-4k-d32", True, False, 4096, 32),
    Pattern("write-1m-d4", False, True, 1 << 20, 4),
    Pattern("read-1m-d4", False, False, 1 << 20, 4),
)


@dataclass(frozen=True)
class Plan:
    """How long and how often."""
    rounds: int
    seconds: float
    warmup: float
    span: int
