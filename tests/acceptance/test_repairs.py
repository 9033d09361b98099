"""An installed node that is broken in five ways, and mended by what its journal says; docs/operating.md, "What to do when".

One machine and one story, as in test_installation.py; what was typed and shown is kept in .artefacts/repairs.log.
"""

import json
import re
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installed import MAKE, MARK, Site, a_site, checkout
from tests.acceptance.nodes import patiently
from tests.authority import Authority

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(3600)]

STORE = "/var/lib/mammonode"
DISK_MB = 400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that works, whose store has a small disk of its own."""
    sources = checkout(tmp_path_factory.mktemp("sources"))
    with a_site(tmp_path_factory.mktemp("machine"), sources, "repairs") as opened:
        machine = opened.machine
        machine.type(f"{MAKE} install")
        opened.configure()
        with_settings(opened, storage={"max_used_percent": "85"})
        machine.type("systemctl stop 'mammonode*'")
        machine.type(f"mount -t tmpfs -o size={DISK_MB}m tmpfs {STORE} && systemd-tmpfiles --create")
        machine.type("systemctl start mammonode.target mammonode.service mammonode-worker@0.service")
        assert opened.answer(opened.send("QZX-WHOLE"))
        yield opened


def with_settings(site: Site, **sections: dict[str, str]) -> None:
    """Change keys of the settings file, where it has them already."""
    text = site.settings.read_text(encoding="utf-8")
    for section, values in sections.items():
        before, head, rest = text.partition(f"\n[{section}]\n")
        body, following, others = rest.partition("\n[")
        for key, value in values.items():
            body, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", body, flags=re.MULTILINE)
            assert found == 1, key
        text = before + head + body + following + others
    site.settings.write_text(text, encoding="utf-8")


class Journal:
    """What the journal tells from now on."""

    def __init__(self, site: Site) -> None:
        self._machine = site.machine
        self._begin = site.machine.type("date +%s.%N").strip()

    def lines(self) -> list[dict[str, str]]:
        """Return the entries of our units that somebody should see."""
        told = self._machine.type(
            f"journalctl --unit='mammonode*' --priority=warning --since=@{self._begin} --output=json --no-pager"
        )
        return [json.loads(line) for line in told.splitlines() if line.startswith("{")]

    def told(self, event: str) -> str:
        """Return the first line about an event, '' when there is none."""
        found = [line["MESSAGE"] for line in self.lines() if line.get("MAMMONODE_EVENT") == event]
        return found[0] if found else ""

    def counts(self) -> Counter[str]:
        """Return how many lines there are of each event of ours."""
        return Counter(line["MAMMONODE_EVENT"] for line in self.lines() if "MAMMONODE_EVENT" in line)


def test_a_port_that_is_taken(site: Site) -> None:
    machine, journal = site.machine, Journal(site)
    machine.type("systemctl stop mammonode")
    with socket.create_server(("127.0.0.1", 11112)):
        machine.type("systemctl start mammonode", fails=True)
        told = journal.told("cannot start")
        assert "Address already in use" in told
        assert "ss -ltnp" in told
        assert patiently(lambda: "cannot start" in machine.enter("systemctl status mammonode").stdout)
        assert "FAIL DICOM door" in machine.type("mammonode check", fails=True)
    assert patiently(lambda: machine.enter("systemctl is-active mammonode").returncode == 0)
    assert site.answer(site.send("QZX-PORT"))


def test_a_disk_that_is_full(site: Site) -> None:
    machine, journal, exam = site.machine, Journal(site), site.an_exam("QZX-DISK")
    machine.type(f"fallocate --length {DISK_MB * 9 // 10}M {STORE}/filler")
    assert not site.is_taken(exam)
    told = journal.told("instance refused")
    assert "fuller than its watermark" in told
    assert "df" in told
    assert "FAIL disk" in machine.type("mammonode check", fails=True)
    machine.type(f"dd if=/dev/zero of={STORE}/filler2 bs=64k", fails=True)
    journal = Journal(site)
    assert not site.is_taken(exam)
    assert "No space left on device" in journal.told("instance not received")
    assert not [event for event in journal.counts() if event.startswith("association")]
    machine.type(f"rm {STORE}/filler {STORE}/filler2")
    assert site.is_taken(exam)
    assert site.answer(exam.study)


def test_a_pacs_that_is_off(site: Site) -> None:
    machine, journal = site.machine, Journal(site)
    site.pacs.stop()
    study = site.send("QZX-PACS")
    assert patiently(lambda: bool(journal.told("result not delivered, will be tried again")))
    told = journal.told("result not delivered, will be tried again")
    assert "no connection" in told
    assert "mammonode echo" in told
    assert journal.counts()["result not delivered, will be tried again"] == 1
    assert "FAIL destination pacs" in machine.type("mammonode echo", fails=True)
    assert patiently(lambda: "pacs: " in machine.type("systemctl status mammonode"))
    site.pacs.start()
    assert site.answer(study)


def test_a_certificate_that_has_ended(site: Site, tmp_path: Path) -> None:
    machine, authority = site.machine, Authority(tmp_path, "hospital", days=400)
    folder = machine.root / "etc/mammonode/tls"
    folder.mkdir()
    shutil.copy(authority.path, folder / "authorities.pem")
    shutil.copy(authority.signed("node", days=-1), folder / "node.pem")
    machine.type("chown -R root:mammonode /etc/mammonode/tls && chmod -R u=rwX,g=rX,o= /etc/mammonode/tls")
    named = {"certificate": "node", "key": "node", "ca": "authorities"}
    files = {key: f'"/etc/mammonode/tls/{name}.pem"' for key, name in named.items()}
    with_settings(site, tls={"listen": "true", **files})
    shown = str(authority.signed("modality"))
    site.tls = ("+tls", shown, shown, "+cf", str(authority.path))
    journal, exam = Journal(site), site.an_exam("QZX-TLS")
    machine.type("systemctl restart mammonode")
    assert patiently(lambda: bool(journal.told("no longer valid")))
    assert "tls.certificate" in journal.told("no longer valid")
    assert "reload" in journal.told("no longer valid")
    assert not site.is_taken(exam)
    assert "mammonode check" in journal.told("association refused: the caller does not take this node's certificate")
    assert "FAIL tls.certificate" in machine.type("mammonode check", fails=True)
    machine.type("systemctl reload mammonode")
    assert patiently(lambda: "node.pem" in journal.told("reload refused") or "ended" in journal.told("reload refused"))
    (folder / "node.pem").write_bytes(authority.signed("node", days=365).read_bytes())
    machine.type("systemctl reload mammonode")
    assert site.is_taken(exam)
    assert site.answer(exam.study)


def test_a_database_that_is_down(site: Site) -> None:
    machine = site.machine
    if machine.enter("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install postgresql").returncode:
        pytest.skip("PostgreSQL cannot be installed on the machine")
    machine.type("systemctl start postgresql && su postgres -c 'createuser mammonode'")
    machine.type("su postgres -c 'createdb --owner mammonode mammonode'")
    machine.type("systemctl stop 'mammonode*'")
    file = machine.type("mammonode backup").split()[-1]
    machine.type("echo postgresql:///mammonode >/etc/mammonode/credentials/storage.database")
    machine.type(f"mammonode restore {file}")
    machine.type("systemctl start mammonode.target mammonode.service mammonode-worker@0.service")
    assert site.answer(site.send("QZX-BEFORE"))
    exam, journal = site.an_exam("QZX-DATABASE"), Journal(site)
    machine.type("systemctl stop postgresql")
    assert not site.is_taken(exam)
    assert "systemctl status postgresql" in journal.told("instance refused")
    assert patiently(lambda: bool(journal.told("will be tried again") and journal.told("lane waits")))
    assert "systemctl status postgresql" in journal.told("will be tried again")
    machine.type("systemctl start mammonode-selftest", fails=True)
    assert "phase=start" in journal.told("self-test failed")
    assert patiently(lambda: "the database does not answer" in machine.type("systemctl status mammonode"))
    assert max(journal.counts().values()) <= 3  # one line from each process and lane, however long it lasts
    machine.type("systemctl start postgresql")
    assert patiently(lambda: site.is_taken(exam))
    assert site.answer(exam.study)
    assert "goes on again" in machine.type("journalctl --no-pager -o cat MAMMONODE_EVENT='goes on again'")


def test_the_doctor_has_seen_it_all_and_knows_nobody(site: Site) -> None:
    machine = site.machine
    file = machine.type("cd /root && mammonode doctor").split()[-1]
    text = machine.type(f"cat {file}")
    told = {line["event"] for line in json.loads(text)["journal"]}
    assert {"cannot start", "instance refused", "no longer valid", "self-test failed"} <= told
    everything = text + machine.type("journalctl --no-pager --output=export --all")
    assert MARK.partition("^")[0] not in everything
    assert "QZX-" not in everything
