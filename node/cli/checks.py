"""What `mammonode check` finds of the doors and of who is told the audit trail: it tries what these will try."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ai.errors import AIError
from config.settings import Audit, Settings, Tls
from node.errors import CannotListen, CertificateUnusable, NodeError, NotProtected
from storage.errors import (
    BucketUnavailable,
    DatabaseDamaged,
    DatabaseRefuses,
    DatabaseUnavailable,
    DiskLow,
    DriverMissing,
    StorageError,
    StoreUnusable,
)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check, and what to do when it failed; one that only warns fails nothing."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""
    warns: bool = False


REMEDIES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (DatabaseDamaged, "stop the node, then mammonode restore --replace FILE; look at the disk: journalctl -k"),
    (DatabaseRefuses, "storage.database: the rights of its user, the owner of its file; a standby takes no writes"),
    (DriverMissing, "install it, or change storage.database"),
    (DatabaseUnavailable, "is the server running, is storage.database right?"),
    (
        StoreUnusable,
        "storage.folder: ls -ld tells its owner, which has to be the node's user, and findmnt how it is mounted",
    ),
    (DiskLow, "free space, or lower storage.min_free_gb / raise max_used_percent"),
    (BucketUnavailable, "docs/operating.md, A bucket instead of a folder, says what it needs"),
    (NotProtected, "mammonode tokens add, or http.oidc_issuer, or http.client_ca; or http.bind = 127.0.0.1"),
    (CertificateUnusable, "correct certificate, key and client_ca in [http]; docs/access.md says what they are"),
)
"""What to do about an error, by its kind; the first that fits."""


def attempt(name: str, run: Callable[[], str], remedy: str = "the error says it") -> Finding:
    """Try something that returns what it has found; what to do is told by the error's kind, and else by ``remedy``."""
    try:
        return Finding(name, ok=True, detail=run())
    except CannotListen as error:
        return Finding(name, ok=False, detail=str(error), remedy=listening(error))
    except (AIError, NodeError, StorageError, OSError) as error:
        known = next((words for kind, words in REMEDIES if isinstance(error, kind)), remedy)
        return Finding(name, ok=False, detail=str(error), remedy=known)


def listening(error: CannotListen) -> str:
    """Return what to do about a door that cannot be opened."""
    match getattr(error.__cause__, "errno", None):
        case errno.EADDRINUSE:
            return "ss -ltnp names the program that has the port; once it is free, all goes on by itself"
        case errno.EACCES:
            return "ports below 1024 are closed to the service: change port"
        case _:
            return "ip address lists the addresses of this host: correct bind"


def doors(settings: Settings) -> Iterator[Finding]:
    """Yield what there is to say of the DICOM door, and of the HTTP door where there is one."""
    from node.doors import try_address  # noqa: PLC0415 (keeps --help quick)

    dicom, name = settings.dicom, "DICOM door"
    where = f"{dicom.bind}:{dicom.port}"
    runs: bool | None = False
    try:
        try_address("dicom", dicom.bind, dicom.port)
    except CannotListen as error:
        runs = _is_tended(settings)
        if runs:
            yield Finding(name, ok=True, detail=f"{where}: answers")
        elif getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
            yield Finding(name, ok=False, detail=str(error), remedy=listening(error))
        elif runs is not None:
            told = f"{where}: somebody listens who does not answer as this node does"
            remedy = "ss -ltnp names the program: stop it, or change dicom.port"
            yield Finding(name, ok=False, detail=told, remedy=remedy)
    else:
        yield Finding(name, ok=True, detail=f"{where}: nobody listens: the node does not run")
    if settings.http.enabled:
        yield attempt("HTTP door", lambda: _web(settings, runs=runs is not False))


def _is_tended(settings: Settings) -> bool | None:
    """Tell whether this node, or on a host that only reads the one that receives, is at the DICOM door; None without [tls]."""
    from node.doors import is_tended  # noqa: PLC0415 (as above)
    from node.tls import Transport  # noqa: PLC0415 (as above)

    try:
        return is_tended(settings, Transport.open(settings.tls))
    except NodeError:  # told by what looks at [tls]
        return None


def _web(settings: Settings, *, runs: bool) -> str:
    from node.doors import reachable as reached  # noqa: PLC0415 (as above)
    from node.doors import try_address, web_answers  # noqa: PLC0415 (as above)
    from node.parts import open_parts  # noqa: PLC0415 (as above)
    from node.service import require_protection  # noqa: PLC0415 (as above)
    from node.web.server import require_usable  # noqa: PLC0415 (as above)

    http = settings.http
    where = f"{http.bind}:{http.port}"
    require_usable(http)
    if not http.is_local:
        require_protection(open_parts(settings))
    if not runs:
        try_address("http", http.bind, http.port)
        return f"{where}: nobody listens"
    if web_answers(reached(http.bind), http.port, secured=bool(http.certificate)):
        return f"{where}: answers"
    raise CannotListen(f"http, {where}: the node runs, and nobody answers there")


def audit(settings: Audit) -> Iterator[Finding]:
    """Yield whether those who are told the audit trail can be: the files that it takes, not whether a server is on."""
    remedy = "correct [audit]; docs/audit.md says what it is"
    if settings.syslog_host:
        yield attempt("audit.syslog", lambda: _syslog(settings), remedy)
    if settings.file:
        yield attempt(
            "audit.file", lambda: _file(Path(settings.file)), "its folder and itself: ls -l tells who may write"
        )


def _syslog(settings: Audit) -> str:
    from node.tls import Transport  # noqa: PLC0415 (as above)

    Transport.open(Tls(ca=settings.ca, certificate=settings.certificate, key=settings.key), section="audit")
    return f"{settings.syslog_host}:{settings.syslog_port}"


def _file(file: Path) -> str:
    if file.exists():
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND))
    elif not os.access(file.parent, os.W_OK | os.X_OK):
        number = errno.EACCES if file.parent.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(file.parent))
    return str(file)


def keys(settings: Settings) -> Iterator[Finding]:
    """Yield the private keys that anybody on this host may read."""
    named = [("tls.key", settings.tls.key), ("http.key", settings.http.key), ("audit.key", settings.audit.key)]
    named += [
        (f"key of destination {destination.name}", str(service.key or ""))
        for destination in settings.destinations
        for service in (destination.web, destination.query)
        if service
    ]
    named += [(f"key of worklist {source.url}", str(source.key or "")) for source in settings.worklist.sources]
    for name, file in named:
        try:
            mode = Path(file).stat().st_mode if file else 0
        except OSError:  # told where it is used
            continue
        if mode & stat.S_IROTH:
            remedy = f"chmod o= {file}; if others work on this host, have a new key and certificate"
            yield Finding(name, ok=True, detail=f"{file}: anybody may read it", remedy=remedy, warns=True)
