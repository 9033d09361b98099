"""QIDO-RS over both databases: what was stored is found as the standard says."""

from xml.etree import ElementTree as ET

from pydicom.uid import CTImageStorage

from tests.doors import an_image, phantom_images
from tests.web import SENT, SERIES, Service, parts_of, service, uids, values

__all__ = ["service"]


def test_studies_series_and_instances_are_found_with_what_the_standard_asks_for(service: Service) -> None:
    service.store(*phantom_images())
    [study] = service.get("/studies").json()
    image = phantom_images()[0]
    assert values(study, "0020000D") == [SENT]
    assert values(study, "00100010") == [{"Alphabetic": str(image.PatientName)}]
    assert values(study, "00080061") == ["MG"]
    assert (values(study, "00201206"), values(study, "00201208")) == ([4], [4])
    assert values(study, "00081190") == [f"http://testserver/dicom-web/studies/{SENT}"]
    series = service.get(f"/studies/{SENT}/series")
    assert set(uids(series, SERIES)) == {str(each.SeriesInstanceUID) for each in phantom_images()}
    assert all(values(each, "00201209") == [1] for each in series.json())
    one = service.get(f"/studies/{SENT}/series/{image.SeriesInstanceUID}/instances")
    assert uids(one) == [image.SOPInstanceUID]
    [found] = one.json()
    assert (values(found, "00280010"), values(found, "00280011")) == ([image.Rows], [image.Columns])
    assert sorted(uids(service.get("/instances"))) == sorted(str(each.SOPInstanceUID) for each in phantom_images())


def test_a_search_is_matched_as_the_standard_says(service: Service) -> None:
    name = str(phantom_images()[0].PatientName)
    service.store(
        an_image(StudyDate="20260110", StudyTime="1015", AccessionNumber="ACC[1]", StudyDescription="50% dense")
    )
    own = SENT
    found = {
        **dict.fromkeys(["PatientName=" + name, "PatientName=" + name.lower(), "00100010=" + name[:3] + "*"], True),
        **dict.fromkeys(["PatientName=nobody", "PatientName=" + name[:3]], False),
        **dict.fromkeys(["StudyDate=20260110", "StudyDate=20260101-", "StudyDate=-20260110"], True),
        **dict.fromkeys(["StudyDate=20260101-20260131", "StudyTime=1000-1100", "StudyTime=10-10"], True),
        **dict.fromkeys(["StudyDate=20260111-", "StudyTime=101501-", "StudyDate=-20260109"], False),
        **dict.fromkeys(["AccessionNumber=ACC[1]", "AccessionNumber=ACC[?]", "AccessionNumber=*[1]*"], True),
        **dict.fromkeys(["AccessionNumber=acc[1]", "AccessionNumber=acc*", "AccessionNumber=ACC?"], False),
        **dict.fromkeys(["StudyDescription=50% *", "StudyDescription=*", "StudyDescription="], True),
        **dict.fromkeys(["StudyDescription=50_ dense", "StudyDescription=50 *"], False),
        **dict.fromkeys(
            [f"StudyInstanceUID={own}", f"StudyInstanceUID=1.2,{own}", f"StudyInstanceUID={own}\\1.2"], True
        ),
        **dict.fromkeys(["StudyInstanceUID=1.2", "ModalitiesInStudy=CT", "PatientID=P*X"], False),
        **dict.fromkeys(["ModalitiesInStudy=MG", "ModalitiesInStudy=M?"], True),
    }
    for query, expected in found.items():
        keyword, _, value = query.partition("=")
        answer = service.get("/studies", **{keyword: value})
        assert (answer.status_code, len(answer.json())) == (200, int(expected)), query
    assert len(service.get("/series", Modality="MG").json()) == 1
    assert len(service.get("/instances", SOPClassUID=str(CTImageStorage)).json()) == 0
    assert len(service.get("/instances", InstanceNumber="1", ModalitiesInStudy="MG").json()) == 1


def test_matches_come_in_pages_and_a_warning_tells_of_more(service: Service) -> None:
    service.store(*phantom_images())
    whole = uids(service.get("/instances"))
    first, last = service.get("/instances", limit=3), service.get("/instances", limit=3, offset=3)
    assert uids(first) + uids(last) == whole
    assert "additional results" in first.headers["warning"]
    assert "warning" not in last.headers
    assert "fuzzymatching" in service.get("/studies", fuzzymatching="true").headers["warning"]


def test_further_fields_come_from_the_files(service: Service) -> None:
    service.store(*phantom_images())
    [study] = service.get("/studies", includefield="00080070,StudyDescription").json()
    assert values(study, "00080070") == [phantom_images()[0].Manufacturer]
    [found] = service.get("/instances", includefield="all", limit=1).json()
    assert values(found, "00181164")
    assert "7FE00010" not in found


def test_a_query_that_cannot_be_answered_is_refused(service: Service) -> None:
    for query in (
        *("limit=-1", "limit=x", "StudyDate=yesterday", "StudyTime=99", "Nonsense=1", "Rows=abc", "SOPInstanceUID=x"),
        *(
            "includefield=Nonsense",
            "StudyInstanceUID=1*",
            "PixelData=1",
            "PatientID=a&PatientID=b",
            "PatientName=a%00b",
        ),
    ):
        answer = service.client.get(f"/dicom-web/instances?{query}")
        assert answer.status_code == 400, query
        assert answer.headers["content-type"] == "application/problem+json"


def test_searches_are_given_as_xml_too(service: Service) -> None:
    service.store(*phantom_images())
    answer = service.get("/instances", 'multipart/related; type="application/dicom+xml"')
    parts = parts_of(answer)
    assert len(parts) == 4
    for kind, data in parts:
        assert kind == "application/dicom+xml"
        ET.fromstring(data)  # noqa: S314 - our own
