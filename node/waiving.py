"""What is told of deliveries that an operator waives, at the command line and on the pages."""

from collections import Counter
from collections.abc import Iterable

from storage.waiving import Waivable


def told_of(waived: Iterable[Waivable]) -> str:
    """Say of what, for whom and in which state they were: ``2 SEG to pacs refused``."""
    groups = Counter(f"{each.kind} to {each.destination} {each.state}" for each in waived)
    return ", ".join(f"{number} {what}" for what, number in sorted(groups.items()))


def words_of(who: str, why: str) -> str:
    """Return what stands in a delivery's record after what its destination said last."""
    return f"waived by {who}: {why}"
