"""Detection, classification and overlap metrics with patient-bootstrap intervals."""
