"""The service on a Debian machine, from the first `make install` to `make uninstall`, as docs/operating.md tells it.

One machine and one story: each test goes on where the one before has left it. What was typed, what it printed and how long
it took is kept in .artefacts/installation.log. MAMMONODE_TEST_SUITE=trixie takes another Debian, noble Ubuntu 24.04 (with
MAMMONODE_TEST_MIRROR=URL), MAMMONODE_TEST_PYTHON=python3.11 another interpreter of it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import DEFAULT_FILE
from tests.acceptance.installed import MAKE, Site, a_site, checkout
from tests.acceptance.nodes import patiently

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(3600)]

MOST_EXPOSED = 2.0
MIGRATION = '''"""Of another version."""

from alembic import op

revision = "{revision}"
down_revision = "{former}"


def upgrade() -> None:
    """Change something."""
    op.execute("CREATE TABLE of_{revision} (number INTEGER)")
'''


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed: this checkout, then other versions of it."""
    return checkout(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("machine"), sources, "installation") as opened:
        yield opened


def with_migration(sources: Path, revision: str) -> None:
    """Let the sources be those of a version that changes the schema."""
    versions = sources / "storage" / "migrations" / "versions"
    former = re.search(r'^revision = "(.*)"', max(versions.glob("v*.py")).read_text(), re.MULTILINE)
    assert former
    text = MIGRATION.format(revision=revision, former=former.group(1))
    (versions / f"v{revision}_other.py").write_text(text, encoding="utf-8")


def test_it_installs_and_a_synthetic_exam_goes_the_whole_way(site: Site) -> None:
    machine = site.machine
    # Root's umask on a hardened machine.
    machine.type(f"umask 077; {MAKE} install")
    for unit in ("mammonode.target", "mammonode.service", "mammonode-worker@0.service", "mammonode-selftest.timer"):
        assert machine.type(f"systemctl is-active {unit}").strip() == "active"
    assert machine.type("systemctl is-enabled mammonode.target mammonode-worker@0").split() == ["enabled"] * 2
    machine.type(f"{MAKE} install")
    assert len(list((machine.root / "opt/mammonode").glob("0*"))) == 1


def test_installed_settings_are_the_documented_ones_but_for_the_folders(site: Site) -> None:
    installed = (site.machine.root / "etc/mammonode/mammonode.toml").read_text(encoding="utf-8").splitlines()
    shipped = DEFAULT_FILE.read_text(encoding="utf-8").splitlines()
    changed = [line for line, other in zip(installed, shipped, strict=True) if line != other]
    assert changed == ['folder = "/var/lib/mammonode"', 'models_folder = "/var/lib/mammonode/models"']


def test_the_booted_machine_finds_it_hardly_exposed(site: Site) -> None:
    for unit in ("mammonode.service", "mammonode-worker@0.service", "mammonode-selftest.service"):
        told = site.machine.type(f"systemd-analyze security --no-pager {unit}")
        [exposure] = re.findall(r"Overall exposure level for .*: ([0-9.]+)", told)
        assert float(exposure) <= MOST_EXPOSED


def test_its_settings_are_read_again_and_an_exam_is_answered(site: Site) -> None:
    site.configure()
    site.machine.type("systemctl reload mammonode.service")
    study = site.send("FIRST")
    assert site.answer(study)
    assert site.exams() == {study: "answered"}
    told = site.machine.type("journalctl --no-pager -o cat MAMMONODE_EVENT='settings read again'")
    assert "destinations" in told


def test_wrong_settings_are_refused_whole_and_it_goes_on(site: Site) -> None:
    file = site.settings
    right = file.read_text(encoding="utf-8")
    file.write_text(right.replace("complete_quiet = 10", "complete_quiet = -1"), encoding="utf-8")
    site.machine.type("systemctl reload mammonode.service", fails=True)
    file.write_text(right, encoding="utf-8")
    assert site.machine.type("systemctl is-active mammonode.service").strip() == "active"


def test_a_secret_reaches_service_and_command_line_and_nobody_else(site: Site) -> None:
    secret = site.machine.root / "etc/mammonode/credentials/exam.complete_quiet"
    secret.write_text("2", encoding="utf-8")
    secret.chmod(0o600)
    site.machine.type("systemctl restart mammonode.service")
    told = json.loads(site.machine.type("mammonode check --settings-only --json"))
    assert told["settings"]["exam"]["complete_quiet"] == 2
    [held] = site.machine.type("find /run/credentials/mammonode.service -type f -printf '%f '").split()
    assert held == "mammonode_exam.complete_quiet"
    assert "may not read" in site.machine.type("su nobody -s /bin/sh -c 'mammonode exams'", fails=True)


def test_a_worker_that_is_killed_is_started_again(site: Site) -> None:
    machine = site.machine
    former = machine.type("systemctl show --value --property=MainPID mammonode-worker@0").strip()
    machine.type("systemctl kill --signal=KILL mammonode-worker@0")
    study = site.send("SECOND")
    assert site.answer(study)
    assert machine.type("systemctl show --value --property=MainPID mammonode-worker@0").strip() not in {"0", former}
    assert int(machine.type("systemctl show --value --property=NRestarts mammonode-worker@0")) >= 1


def test_everything_it_has_written_is_its_own(site: Site) -> None:
    site.machine.type("mammonode backup")
    assert site.machine.type("find /var/lib/mammonode -not -user mammonode") == ""
    assert site.machine.type("find /var/lib/mammonode -perm /077") == ""


def test_it_is_upgraded_with_its_database(site: Site, sources: Path) -> None:
    before = site.exams()
    with_migration(sources, "9001")
    told = site.machine.type(f"{MAKE} upgrade")
    assert "/var/lib/mammonode/backups/" in told
    assert site.exams() == before
    study = site.send("THIRD")
    assert site.answer(study)


def test_an_upgrade_that_does_not_become_ready_falls_back(site: Site, sources: Path) -> None:
    before, version = site.exams(), (site.machine.root / "opt/mammonode/current").readlink()
    with_migration(sources, "9002")
    working = sources / "node" / "working.py"
    right = working.read_text(encoding="utf-8")
    working.write_text(f"{right}\nraise LookupError\n", encoding="utf-8")
    told = site.machine.type(f"{MAKE} upgrade", fails=True)
    working.write_text(right, encoding="utf-8")
    assert f"did not become ready: {version} runs again" in told
    assert (site.machine.root / "opt/mammonode/current").readlink() == version
    assert site.exams() == before
    assert site.answer(site.send("FOURTH"))


def test_settings_that_a_new_version_does_not_take_leave_the_old_one_alone(site: Site, sources: Path) -> None:
    settings = sources / "config" / "settings" / "node.py"
    right = settings.read_text(encoding="utf-8")
    settings.write_text(right.replace("    complete_quiet: Seconds = 10\n", ""), encoding="utf-8")
    pid = site.machine.type("systemctl show --value --property=MainPID mammonode.service")
    told = site.machine.type(f"{MAKE} upgrade", fails=True)
    settings.write_text(right, encoding="utf-8")
    assert "complete_quiet" in told
    assert "was not touched" in told
    assert site.machine.type("systemctl show --value --property=MainPID mammonode.service") == pid


def test_going_back_loses_no_exam_that_came_since(site: Site) -> None:
    before, reported = site.exams(), {str(report.SOPInstanceUID) for report in site.reports()}
    site.machine.type(f"{MAKE} rollback")
    # The third and the fourth are in the store and were not in the backup: they are read, and answered, once more.
    assert patiently(lambda: site.exams() == before)
    assert patiently(lambda: len(site.reports()) == len(reported) + 2)
    assert reported < {str(report.SOPInstanceUID) for report in site.reports()}
    assert "no former version" in site.machine.type(f"{MAKE} rollback", fails=True)


def test_it_starts_with_the_machine(site: Site) -> None:
    assert "mammonode.target" in site.machine.type("systemctl list-dependencies --plain multi-user.target")


def test_it_leaves_and_keeps_images_database_and_settings(site: Site) -> None:
    files = site.machine.type("find /etc/mammonode /var/lib/mammonode/instances -type f")
    told = site.machine.type(f"{MAKE} uninstall")
    assert "/var/lib/mammonode" in told
    assert site.machine.type("find /etc/mammonode /var/lib/mammonode/instances -type f") == files
    assert not (site.machine.root / "opt/mammonode").exists()
    assert "mammonode" not in site.machine.type("systemctl list-unit-files --no-legend 'mammonode*' || true")
    site.machine.type("command -v mammonode", fails=True)
    assert "remove-all-images" in site.machine.type(f"{MAKE} purge", fails=True)
