"""Who this application entity says it is, in every object and association."""

from importlib.metadata import version

MANUFACTURER = "Mammonode"
MODEL_NAME = "Mammonode"
VERSION = version("mammonode")
RESEARCH_USE_ONLY = "Research use only. Not for clinical diagnosis."
IMPLEMENTATION_CLASS_UID = "2.25.270695996825855179949881587723571202391"
"""UUID-derived (PS3.5 B.2), made once for this implementation."""
IMPLEMENTATION_VERSION_NAME = f"MAMMONODE_{VERSION}"[:16]
"""At most 16 characters (PS3.7 D.3.3.2.4)."""
TEST_ISSUER = "MAMMONODE SELF-TEST"
"""Issuer of Patient ID (PS3.3 C.7.1.1) of every exam of a self-test, and of no patient's."""
