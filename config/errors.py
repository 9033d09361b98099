"""What can be wrong with the settings."""

from collections.abc import Sequence


class ConfigError(Exception):
    """The configuration cannot be used."""


class InvalidSettings(ConfigError):
    """The settings are not valid; nothing was started.

    Parameters
    ----------
    faults
        One sentence for each, beginning with the path of the key.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("The settings are not valid: " + "; ".join(faults))
