"""DCMTK over TLS: as a modality at the door, and as a PACS; with certificates that are good, and in each way that they are not."""

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from config.settings import Caller, Destination, Dicom, Http, Tls
from node.errors import CertificateUnusable, HandshakeFailed, TlsUnusable
from node.scp import StorageSCP
from node.scu import Item, Sender
from node.tls import ANYBODY, Fault, Transport
from node.web.server import require_usable
from tests.authority import Authority
from tests.doors import Room, an_image, an_open_door
from tests.pacs import a_free_port
from tests.peers import eventually, require_dcmtk, running

pytestmark = [
    pytest.mark.interop,
    # Connections that fail are left to pynetdicom's destructors.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.sqlite_alone,
]

KNOWN = (Caller(ae_title="MODALITY"), Caller(ae_title="BOUND", subject="bound"))


@dataclass(frozen=True)
class Papers:
    """Two authorities, and what they have signed."""

    ours: Authority
    node: Path
    modality: Path
    revoked: Path
    expired: Path
    foreign: Path
    revocations: Path

    def settings(self, **changes: object) -> Tls:
        """Return settings of a node that checks everything."""
        stated = {"listen": True, "certificate": str(self.node), "ca": str(self.ours.path)}
        return Tls.model_validate(stated | {"revoked": str(self.revocations)} | changes)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    ours, other = Authority(folder, "ours"), Authority(folder, "other")
    revoked = ours.signed("revoked")
    return Papers(
        ours,
        ours.signed("node"),
        ours.signed("modality"),
        revoked,
        ours.signed("expired", days=-1),
        other.signed("modality"),
        ours.revocation_list([revoked]),
    )


@pytest.fixture
def door(room: Room, papers: Papers) -> Iterator[StorageSCP]:
    with an_open_door(room, transport=Transport.open(papers.settings()), callers=KNOWN) as opened:
        yield opened


def echoscu(door: StorageSCP, papers: Papers, *tls: object, title: str = "MODALITY") -> bool:
    """Tell whether DCMTK's C-ECHO is answered; it knows our authority."""
    known = ["+cf", papers.ours.path] if tls else []
    command = [require_dcmtk("echoscu"), *tls, *known, "-aet", title, "-aec", "MAMMONODE", "localhost", door.port]
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode == 0


def showing(certificate: Path) -> tuple[object, ...]:
    return "+tls", certificate, certificate


def events(logs: Sequence[Mapping[str, object]]) -> list[object]:
    """Return what was told as more than information."""
    return [line["event"] for line in logs if line["log_level"] in {"warning", "error"}]


def settled(logs: Sequence[Mapping[str, object]]) -> list[object]:
    """Return the same as soon as there is any: the other side may hear of a refusal before it is told."""
    assert eventually(lambda: bool(events(logs)))
    return events(logs)


def test_storescu_sends_over_tls_with_a_certificate_of_the_authority(
    room: Room, door: StorageSCP, papers: Papers, tmp_path: Path
) -> None:
    path = tmp_path / "image.dcm"
    an_image().save_as(path, enforce_file_format=True)
    tls = [*showing(papers.modality), "+cf", papers.ours.path]
    command = [require_dcmtk("storescu"), *tls, "-aet", "MODALITY", "-aec", "MAMMONODE", "localhost", door.port, path]
    sent = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert room.rows() == (1, 1, 0)


def test_each_refusal_is_one_line_that_names_its_cause(door: StorageSCP, papers: Papers) -> None:
    cases = {
        "association refused: certificate of an unknown authority": showing(papers.foreign),
        "association refused: certificate expired": showing(papers.expired),
        "association refused: certificate revoked": showing(papers.revoked),
        "association refused: no certificate": ("+tla",),
        "association refused: plain DICOM at a TLS port": (),
    }
    for event, tls in cases.items():
        with capture_logs() as logs:
            assert not echoscu(door, papers, *tls)
            assert settled(logs) == [event]
    assert echoscu(door, papers, *showing(papers.modality))


def test_a_caller_may_be_bound_to_its_certificate(door: StorageSCP, papers: Papers) -> None:
    assert echoscu(door, papers, *showing(papers.ours.signed("bound")), title="BOUND")
    with capture_logs() as logs:
        assert not echoscu(door, papers, *showing(papers.modality), title="BOUND")
        assert settled(logs) == ["association refused: another certificate"]


def test_tls_at_a_plain_door_is_named(room: Room, papers: Papers) -> None:
    with an_open_door(room) as plain, capture_logs() as logs:
        assert not echoscu(plain, papers, *showing(papers.modality))
        assert settled(logs) == ["association refused: TLS at a port without it"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_it_speaks_tls_1_2_and_1_3_and_only_suites_of_bcp_195(
    door: StorageSCP, papers: Papers, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(papers.ours.path))
    context.load_cert_chain(papers.modality)
    context.minimum_version = context.maximum_version = version
    plain = socket.create_connection(("127.0.0.1", door.port))
    with context.wrap_socket(plain, server_hostname="localhost") as secured:
        name, _, _ = secured.cipher() or ("", "", 0)
    assert "GCM" in name or "CHACHA20" in name
    old = ssl.create_default_context(cafile=str(papers.ours.path))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("ECDHE+AES:!AESGCM:@SECLEVEL=0")
    with capture_logs() as logs, socket.create_connection(("127.0.0.1", door.port)) as plain:
        with pytest.raises(ssl.SSLError):
            old.wrap_socket(plain, server_hostname="localhost")
        assert settled(logs) == ["association refused: no common version or cipher suite of TLS"]


def test_handshakes_that_hang_keep_nobody_out(door: StorageSCP, papers: Papers) -> None:
    hanging = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(12)]
    with capture_logs() as logs:
        try:
            for one in hanging[6:]:
                one.sendall(b"\x16\x03\x01")
            assert echoscu(door, papers, *showing(papers.modality))
        finally:
            for one in hanging:
                one.close()
        assert eventually(lambda: len(events(logs)) == 6), events(logs)  # of those that had begun


def test_one_address_holds_only_so_many_handshakes(door: StorageSCP) -> None:
    with capture_logs() as logs:
        hanging = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(20)]
        assert eventually(lambda: len(events(logs)) == 4)
        for one in hanging:
            one.close()
    assert set(events(logs)) == {"connection closed: too many handshakes at once"}


def test_new_certificates_count_from_the_next_association_on(door: StorageSCP, papers: Papers) -> None:
    revoked = papers.ours.revocation_list([papers.modality])
    door.use(Dicom(callers=KNOWN), None, None, Transport.open(papers.settings(revoked=str(revoked))))
    assert not echoscu(door, papers, *showing(papers.modality))
    assert echoscu(door, papers, *showing(papers.ours.signed("modality")))


def test_a_revocation_list_that_is_too_old_lets_nobody_in(room: Room, papers: Papers) -> None:
    transport = Transport.open(papers.settings(revoked=str(papers.ours.revocation_list(days=-1))))
    with an_open_door(room, transport=transport) as door, capture_logs() as logs:
        assert not echoscu(door, papers, *showing(papers.modality))
        assert settled(logs) == ["association refused: no current revocation list"]


# --- as a caller


@contextmanager
def storescp(papers: Papers, folder: Path, certificate: Path, authority: Authority) -> Iterator[Destination]:
    """Run DCMTK as a PACS that wants TLS and a certificate of an authority."""
    port = a_free_port()
    received = folder / "received"
    received.mkdir()
    tls = ["+tls", certificate, certificate, "+cf", authority.path]
    command = [require_dcmtk("storescp"), *tls, "-aet", "PACS", "-od", received, port]
    place = Destination(name="pacs", ae_title="PACS", host="localhost", port=port, tls=True)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with running(*command, log=folder / "storescp.log", ready=listens):
        yield place


def test_results_go_to_a_pacs_over_tls_whose_certificate_is_checked(papers: Papers, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    an_image().save_as(path, enforce_file_format=True)
    sender = Sender(Dicom(acse_timeout=10), Transport.open(papers.settings()))
    with storescp(papers, tmp_path, papers.ours.signed("pacs"), papers.ours) as place:
        assert sender.echo(place).answered
        assert [response.status for response in sender.send(place, [Item.of(path)])] == [0]
        assert len(list((tmp_path / "received").iterdir())) == 1
        named, anybody, wrong = (place.model_copy(update={"subject": name}) for name in ("pacs", ANYBODY, "other"))
        assert sender.echo(named).answered
        assert sender.echo(anybody).answered
        assert "its certificate is somebody else's: CN=pacs,O=Example\\, Hospital" in sender.echo(wrong).message
        elsewhere = place.model_copy(update={"host": "127.0.0.2"})
        assert "its certificate is not for the host that is called" in sender.echo(elsewhere).message
        plain = place.model_copy(update={"tls": False})
        assert not sender.echo(plain).answered


@pytest.mark.parametrize(
    ("which", "cause"),
    [
        ("foreign", "of an authority that is not in tls.ca"),
        ("expired", "its certificate has expired"),
        ("revoked", "its certificate is revoked"),
    ],
)
def test_a_pacs_with_a_bad_certificate_gets_nothing_and_the_cause_is_told(
    papers: Papers, tmp_path: Path, which: str, cause: str
) -> None:
    sender = Sender(Dicom(acse_timeout=10), Transport.open(papers.settings()))
    with storescp(papers, tmp_path, getattr(papers, which), papers.ours) as place:
        assert cause in sender.echo(place).message


def test_a_pacs_that_does_not_take_our_certificate_is_named(papers: Papers, tmp_path: Path) -> None:
    sender = Sender(Dicom(acse_timeout=10), Transport.open(papers.settings()))
    with storescp(papers, tmp_path, papers.ours.signed("pacs"), Authority(tmp_path, "third")) as place:
        assert "it does not take this node's certificate" in sender.echo(place).message


def test_tls_to_a_plain_pacs_is_named(papers: Papers, room: Room) -> None:
    sender = Sender(Dicom(acse_timeout=10), Transport.open(papers.settings()))
    with an_open_door(room) as plain:
        place = Destination(name="pacs", ae_title="MAMMONODE", host="localhost", port=plain.port, tls=True)
        assert "it does not speak TLS at this port" in sender.echo(place).message
    lost = Sender(Dicom(), Transport.open(Tls()))
    with pytest.raises(HandshakeFailed, match="there is no ca in"):
        list(lost.send(place, []))


# --- files


def test_a_connection_that_the_other_side_refuses_or_resets_is_closed_as_pynetdicom_closes(papers: Papers) -> None:
    context = Transport.open(papers.settings()).calls
    assert context is not None
    refused = context.wrap_socket(socket.socket(), server_hostname="localhost")
    with pytest.raises(ConnectionRefusedError):
        refused.connect(("127.0.0.1", a_free_port()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        reset = context.wrap_socket(socket.socket(), server_hostname="localhost")
        other = threading.Thread(target=lambda: _reset(server.accept()[0]))
        other.start()
        with pytest.raises(OSError, match=r"."):
            reset.connect(server.getsockname())
        other.join()
    for gone in (refused, reset):
        with pytest.raises(OSError, match="not connected"):  # and `close` is not called after that
            gone.shutdown(socket.SHUT_RDWR)
        assert gone.fileno() == -1


def test_a_callers_connection_that_is_reset_is_closed(papers: Papers) -> None:
    door = Transport.open(papers.settings(listen=True)).door
    assert door is not None
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        plain, _ = server.accept()
        secured = door.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        _reset(caller)
        with pytest.raises(ConnectionError):
            secured.do_handshake()
        with pytest.raises(OSError, match="not connected"):
            secured.shutdown(socket.SHUT_RDWR)
    assert secured.fileno() == -1


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_node_that_its_own_door_would_refuse_is_told_why(papers: Papers, tmp_path: Path) -> None:
    def fault(certificate: Path, authority: Authority, **changes: object) -> Fault | None:
        changes |= {"certificate": str(certificate), "ca": str(authority.path), "revoked": ""}
        return Transport.open(papers.settings(**changes)).own_fault()

    issuing = Authority(tmp_path, "issuing", issuer=papers.ours)
    assert fault(papers.node, papers.ours) is None
    assert fault(issuing.signed("node"), issuing) is None, "the authority is in the file; its root need not be"
    assert fault(issuing.signed("node"), papers.ours) is Fault.UNKNOWN_AUTHORITY, "its chain is not with it"
    assert fault(papers.foreign, papers.ours) is Fault.UNKNOWN_AUTHORITY
    assert fault(papers.expired, papers.ours) is Fault.EXPIRED
    assert fault(papers.foreign, papers.ours, listen=False) is None


def test_a_key_with_a_password_and_one_that_is_not_there_are_told(papers: Papers, tmp_path: Path) -> None:
    pem = papers.node.read_bytes()
    secret, without = tmp_path / "secret.key", tmp_path / "without.pem"
    way = serialization.BestAvailableEncryption(b"secret")
    key = serialization.load_pem_private_key(pem, None)
    pkcs8 = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, way))
    without.write_bytes(pem.partition(b"-----BEGIN PRIVATE KEY")[0])
    for changes, told in (
        ({"key": str(secret)}, "the key has a password"),
        ({"certificate": str(without)}, "no private key"),
        ({"key": str(tmp_path / "none.key")}, "tls.key = .*none.key: No such file"),
    ):
        with pytest.raises(TlsUnusable, match=told):
            Transport.open(papers.settings(**changes))
    with pytest.raises(CertificateUnusable, match="the key has a password"):
        require_usable(Http(certificate=str(papers.node), key=str(secret)))


def test_files_that_do_not_fit_are_refused_by_name(papers: Papers, tmp_path: Path) -> None:
    other = papers.ours.signed("other")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    for changes, told in (
        ({"key": str(other)}, "key values mismatch"),
        ({"ca": str(tmp_path / "none.pem")}, "tls.ca = .*none.pem: No such file"),
        ({"certificate": str(broken)}, "tls.certificate = .*broken.pem: no certificate"),
        ({"revoked": str(other)}, "no revocation list"),
    ):
        with pytest.raises(TlsUnusable, match=told):
            Transport.open(papers.settings(**changes))
