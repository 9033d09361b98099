"""Procedural mammograms with exact truth; no DICOM and no network here. For engineering verification only."""
