"""Arrays in, findings out: reading systems, their training and their evaluation."""
