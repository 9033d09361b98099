"""Findings to DICOM objects."""
