"""Times as Kubernetes writes them. Pure."""

from datetime import UTC, datetime


def parse(text: str | None) -> datetime | None:
    """RFC 3339 → an aware datetime; None for nothing or nonsense."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def text(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age(since: str | None, now: datetime) -> float:
    """Seconds from `since` to `now`; 0 when `since` is unknown or ahead."""
    start = parse(since)
    return max(0.0, (now - start).total_seconds()) if start else 0.0
