"""What is taken for a data set in the DICOM JSON Model, which is given again as JSON and as XML."""

from typing import Any

import pytest

from node.web.dicom_json import is_model


def item(**element: Any) -> dict[str, Any]:
    return {"00404018": {"vr": "SQ", "Value": [{"00080100": element}]}}


@pytest.mark.parametrize(
    "document",
    [
        item(),
        item(vr="SH", Value="text"),
        item(vr="XX"),
        item(vr=["SH"]),
        item(vr="SH", Value=[{"a": 1}]),
        item(vr="SH", Value=[["a"]]),
        item(vr="SH", Value=[True]),
        item(vr="SH", Value=["\0"]),
        item(vr="SH", Value=["\ud800"]),
        item(vr="FD", Value=[float("nan")]),
        item(vr="FD", Value=[float("inf")]),
        item(vr="PN", Value=["Family^Given"]),
        item(vr="PN", Value=[{"Alphabetic": 1}]),
        item(vr="PN", Value=[{"x y": "Family"}]),
        item(vr="OB", InlineBinary=1),
        item(vr="OB", BulkDataURI={}),
        item(vr="SH", more=[]),
        {"00404018": {"vr": "SQ", "Value": ["nonsense"]}},
        {"00404018": {"vr": "SQ", "Value": [None]}},
        {"00404018": {"vr": "SQ", "Value": [{"x": {"vr": "SH"}}]}},
        {"0040_018": {"vr": "SH"}},
    ],
    ids=repr,
)
def test_what_is_no_data_set_at_any_depth_is_none(document: dict[str, Any]) -> None:
    assert not is_model(document)


def test_a_data_set_is_one() -> None:
    assert is_model(item(vr="SH", Value=["A", None]))
