"""The HTTP door: DICOMweb for programs, pages for people."""
