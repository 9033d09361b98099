"""Numbers in sentences."""


def counted(number: float, one: str, many: str = "") -> str:
    """Return a number with what is counted: ``1 image``, ``2 images``; ``many`` where it is not ``one`` with an s."""
    told = number if isinstance(number, int) else f"{number:g}"
    return f"{told} {one if number == 1 else many or f'{one}s'}"
