"""Reading systems behind one Reader protocol."""
