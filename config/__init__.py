"""Settings and their documented default file."""
