"""What tables are printed on: words of strangers stand on it as they are, and tell it nothing."""

from typing import Any

from rich.console import Console
from rich.text import Text

from node.visible import visible


class PlainConsole(Console):
    """A console on which no text is markup, and none reaches the terminal that it would obey.

    Parameters
    ----------
    options
        As of rich's `Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it is to be printed."""
        return super().render_str(visible(text), **options)
