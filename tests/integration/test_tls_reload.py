"""Certificates are renewed while the node runs, at both doors; a wrong file leaves everything as it was."""

import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from config.settings import Dicom, Http, Settings, Storage, Tls
from node.doors import itself
from node.running import read_again
from node.scu import Sender
from node.serving import FIXED, Serving
from node.tls import Transport
from tests.authority import Authority


@dataclass
class Node:
    """A running node whose certificate lies in a file, and the authority that it and its callers are of."""

    authority: Authority
    settings: Settings
    serving: Serving

    @property
    def file(self) -> Path:
        """The node's certificate and key."""
        return Path(self.settings.tls.certificate)

    def put(self, path: Path) -> bytes:
        """Put another certificate in its place; return it in DER."""
        shutil.copy(path, self.file)
        return ssl.PEM_cert_to_DER_cert(path.read_text().partition("-----BEGIN PRIVATE")[0])

    def reload(self) -> bool:
        """Do what SIGHUP does; tell whether it was taken."""
        if changed := read_again(lambda: self.settings, self.serving.parts.settings, FIXED, self.serving.prepare):
            self.serving.use(changed)
        return changed is not None

    def shown(self) -> list[bytes]:
        """Return the certificates that the doors show."""
        ports = (self.serving.dicom_port, self.serving.web_port or 0)
        return [ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port))) for port in ports]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    authority = Authority(tmp_path, "ours")
    certificate = tmp_path / "node.pem"
    shutil.copy(authority.signed("node"), certificate)
    settings = Settings(
        dicom=Dicom(port=0),
        tls=Tls(listen=True, certificate=str(certificate), ca=str(authority.path), mutual=False),
        http=Http(port=0, certificate=str(certificate)),
        storage=Storage(folder=tmp_path / "data", max_used_percent=100, min_free_gb=0),
    )
    serving = Serving(settings)
    serving.open()
    yield Node(authority, settings, serving)
    serving.close()
    serving.parts.engine.dispose()


def test_both_doors_show_a_new_certificate_after_a_reload_and_a_wrong_one_is_refused_whole(node: Node) -> None:
    first = node.shown()
    second = node.put(node.authority.signed("node"))
    assert node.shown() == first
    assert node.reload()
    assert node.shown() == [second, second]

    node.put(node.authority.signed("node", days=-1))
    with capture_logs() as logs:
        assert not node.reload()
    node.file.write_text("no certificate")
    with capture_logs() as more:
        assert not node.reload()
    told = [(line["event"], str(line["faults"])) for line in [*logs, *more] if line["log_level"] == "error"]
    assert [event for event, _ in told] == ["reload refused"] * 2
    assert "ended" in told[0][1]
    assert "no certificate in PEM format" in told[1][1]
    assert node.shown() == [second, second]


def test_the_node_knocks_at_its_own_door_over_tls(node: Node) -> None:
    door = itself(node.settings, node.serving.dicom_port)
    knocks = Sender(
        node.settings.dicom.model_copy(update={"ae_title": "MAMMONODE-TEST"}), Transport.open(node.settings.tls)
    )
    with capture_logs() as logs:
        assert knocks.knock(door)
    assert [line for line in logs if line["log_level"] != "debug"] == []
    # Whom the door does not please it has answered all the same.
    strict = Tls(ca=str(Authority(node.file.parent, "other").path))
    assert Sender(node.settings.dicom, Transport.open(strict)).knock(door)
