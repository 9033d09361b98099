"""What each published system learns from, and by which losses."""
