"""Commands that run the node, or tell whether it could run: serve, work, up, check, echo, demo."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai.errors import AIError, ModelError
from config.errors import InvalidSettings
from config.settings import Destination, Proof, Settings, load_settings
from node.cli.checks import Finding, attempt, audit, doors, keys, listening
from node.cli.options import ConfigOption, JsonOption, print_json
from node.errors import CannotListen, HandshakeFailed, NodeError
from node.faults import told
from node.journal import is_the_journal
from node.telemetry import logger
from storage.errors import DatabaseDamaged, DatabaseRefuses, DatabaseUnavailable, StorageError, StoreOfAnother

if TYPE_CHECKING:
    from node.tls import Dated

log = logger("cli.running")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("up")(up)
    app.command("serve")(serve)
    app.command("work")(work)
    app.command("check")(check)
    app.command("echo")(echo)
    app.command("demo")(demo)


@contextmanager
def _starting() -> Iterator[None]:
    """Log why a part that runs cannot start, or go on; EX_CONFIG means that starting again does not help."""
    from node.logs import configure  # noqa: PLC0415 (only running parts log on stdout)

    configure()
    try:
        yield
    except InvalidSettings as error:
        _cannot_start(error, "mammonode check names every fault of the settings")
        raise typer.Exit(os.EX_CONFIG) from error
    except ModelError as error:
        _cannot_start(error, "mammonode models verify; reader.model in the settings")
        raise typer.Exit(os.EX_CONFIG) from error
    except CannotListen as error:
        _cannot_start(error, listening(error))
        raise typer.Exit(1) from error
    except (DatabaseDamaged, DatabaseRefuses) as error:
        _cannot_start(error, "mammonode check tells more")
        raise typer.Exit(1) from error
    except DatabaseUnavailable as error:
        _cannot_start(error, "systemctl status postgresql, or the disk: df; once it answers, all goes on by itself")
        raise typer.Exit(1) from error
    except (AIError, NodeError, StorageError) as error:
        _cannot_start(error, "the error says it; mammonode check tells more")
        raise typer.Exit(1) from error
    except Exception as error:
        _cannot_start(error, "mammonode check; where that finds nothing, a fault of this program: please report it")
        raise typer.Exit(1) from error


def _cannot_start(error: Exception, check: str) -> None:
    from node.supervision import ServiceManager  # noqa: PLC0415 (keeps --help quick)

    log.critical("cannot start", error=told(error), check=check)
    # Where systemd starts it again, `systemctl status` shows this, and no longer the line.
    ServiceManager.from_environment().status(f"cannot start: {told(error)}")


def serve(*, config: ConfigOption = None) -> None:
    """Receive images, assemble exams and deliver results, until SIGTERM. Reading needs `work` beside it."""
    with _starting():
        # The doors decode no pixel (node.web.decoder is a process of its own) and fetch no test files: decoders of 17 and
        # 2 MB, a client of 5 and its bar of 1, which pydicom loads where they are installed, stay out of theirs.
        for name in ("gdcm", "PIL", "requests", "tqdm"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # which lets its import fail
        from node.serving import serve as run  # noqa: PLC0415 (keeps --help quick)

        run(lambda: load_settings(config))
    # Python waits for pynetdicom's threads, and these for peers that hang: for as long as dimse_timeout, the doors closed.
    if sys.stdout:  # which a process may have been started without
        sys.stdout.flush()
    os._exit(os.EX_OK)


def work(*, config: ConfigOption = None) -> None:
    """Read exams with the model, one after the other, until SIGTERM. Several may run, on several machines."""
    with _starting():
        from node.working import work as run  # noqa: PLC0415 (as above)

        run(lambda: load_settings(config))


def up(
    *,
    config: ConfigOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of reading processes.")] = 1,
) -> None:
    """Run `serve` and `work` together on this machine; a part that dies is started again."""
    with _starting():
        from ai.models import ready_model  # noqa: PLC0415 (as above)
        from node.logs import configure  # noqa: PLC0415 (as above)
        from node.supervisor import up as run  # noqa: PLC0415 (as above)

        settings = load_settings(config)
        configure(settings.log.format, settings.log.level)
        ready_model(settings.reader.model, settings.reader.models_folder)
    raise typer.Exit(run(config, workers))


def check(
    *,
    config: ConfigOption = None,
    settings_only: Annotated[
        bool, typer.Option("--settings-only", help="Look at the settings and nothing else.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the settings, database, disk, model and destinations, and say for each failure what to do."""
    try:
        settings = load_settings(config)
    except InvalidSettings as error:
        findings = [
            Finding(
                "settings",
                ok=False,
                detail=fault,
                remedy="correct this; config/mammonode.toml explains every key",
            )
            for fault in error.faults
        ]
        _report(findings, None, as_json=as_json)
        raise typer.Exit(1) from None
    findings = [Finding("settings", ok=True, detail=str(config or "defaults"))]
    findings += [] if settings_only else _checks(settings)
    _report(findings, settings if as_json or not settings_only else None, as_json=as_json)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _report(findings: list[Finding], settings: Settings | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"settings": settings.masked() if settings else None, "checks": [asdict(f) for f in findings]})
        return
    if settings is not None:
        for section, values in settings.masked().items():
            for key, value in values.items() if isinstance(values, dict) else [("", values)]:
                typer.echo(f"  {section}{'.' if key else ''}{key} = {value!r}")
    # In the journal, where a reload checks the settings, a fault is a warning (sd-daemon(3)).
    urgency = "<4>" if is_the_journal(sys.stdout) else ""
    for finding in findings:
        mark = typer.style("ok  ", fg=typer.colors.GREEN) if finding.ok else typer.style("FAIL", fg=typer.colors.RED)
        mark = typer.style("warn", fg=typer.colors.YELLOW) if finding.warns else mark
        told_at = urgency if finding.warns or not finding.ok else ""
        typer.echo(f"{told_at}{mark} {finding.check}: {finding.detail}")
        if finding.warns or not finding.ok:
            typer.echo(f"{told_at}     -> {finding.remedy}")


def _checks(settings: Settings) -> Iterator[Finding]:
    yield attempt("database", lambda: _database(settings))
    yield attempt("disk", lambda: _disk(settings))
    if settings.bucket.url:
        yield attempt("bucket", lambda: _bucket(settings))
    yield from _apart(settings)
    yield attempt(
        "model",
        lambda: _model(settings),
        "correct the key that is named; mammonode models list has names for reader.model, models verify tells more",
    )
    yield from _workers(settings)
    yield from _scoring(settings)
    yield from _dated(settings)
    yield from keys(settings)
    yield from doors(settings)
    yield from audit(settings.audit)
    if not settings.destinations:
        yield Finding("destinations", ok=True, detail="none: results stay in the store")
    for destination in settings.destinations:
        yield _echo(settings, destination)


def _database(settings: Settings) -> str:
    from node.parts import open_parts  # noqa: PLC0415 (keeps --help quick)
    from storage.soundness import LOOKS_FOR, is_whole, try_writing  # noqa: PLC0415 (as above)

    engine = open_parts(settings).engine
    try_writing(engine)
    looked = "" if is_whole(engine) else f"; no damage found within {LOOKS_FOR:.0f} s, in which not all could be read"
    return f"{engine.url.set(query={}).render_as_string(hide_password=True)}, schema is current{looked}"


def _disk(settings: Settings) -> str:
    from node.parts import prepared_store  # noqa: PLC0415 (as above)

    store = prepared_store(settings)
    store.require_space(settings.storage.watermark)
    usage = store.usage()
    return f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free in {store.root}"


def _bucket(settings: Settings) -> str:
    from node.parts import open_store  # noqa: PLC0415 (as above)

    open_store(settings).prove()
    return f"{settings.bucket.url}: written, read, listed and removed"


def _apart(settings: Settings) -> Iterator[Finding]:
    """Yield whether database and store belong together, and are of one time: one may have been restored, the other not."""
    from node.adoption import apart  # noqa: PLC0415 (as above)
    from node.intake import utc_now  # noqa: PLC0415 (as above)
    from node.parts import open_parts  # noqa: PLC0415 (as above)
    from storage.ownership import require_own  # noqa: PLC0415 (as above)

    with suppress(StorageError, OSError):  # the checks of database, disk and bucket say it
        parts = open_parts(settings)
        try:
            require_own(parts.engine, parts.store)
        except StoreOfAnother as error:
            remedy = "docs/operating.md, Two nodes and one store"
            yield Finding("store", ok=False, detail=str(error), remedy=remedy)
        found = apart(parts.engine, parts.store, utc_now())
        told = f"of the {found.looked_at} images that came last"
        remedy = "stop the node; mammonode adopt"
        if found.gone:
            lost = f"{told} the database knows {found.gone} that the store has not"
            yield Finding(
                "store",
                ok=False,
                detail=lost,
                remedy=f"{remedy} names the exams, to be sent once more (docs/operating.md)",
            )
        if found.unknown:
            lost = f"{told} the store has {found.unknown} that the database does not know"
            remedy = (
                f"is storage.database the right one, and restored? Then {remedy} takes these in (docs/operating.md)"
            )
            yield Finding("store", ok=True, detail=lost, remedy=remedy, warns=True)


def _model(settings: Settings) -> str:
    from ai.models import open_model  # noqa: PLC0415 (as above)
    from ai.readers.registry import load_reader  # noqa: PLC0415 (as above)

    model = open_model(settings.reader.model, settings.reader.models_folder)
    chosen = settings.reader
    reader = load_reader(model, chosen.device, chosen.threads, runtime=chosen.runtime)
    return f"{model.card.name} {model.card.version}, digest {model.digest[:12]}, on {reader.device}"


def _workers(settings: Settings) -> Iterator[Finding]:
    """Yield the workers that read with another model than that of the settings, as after a change before the restart."""
    from ai.models import open_model  # noqa: PLC0415 (as above)
    from node.metrics import RECENTLY  # noqa: PLC0415 (as above)
    from node.parts import open_parts  # noqa: PLC0415 (as above)
    from node.shared_clock import SharedClock  # noqa: PLC0415 (as above)
    from storage.database import reading  # noqa: PLC0415 (as above)
    from storage.workers import workers_seen  # noqa: PLC0415 (as above)

    with suppress(AIError, StorageError):  # the checks of model and database say it
        digest = open_model(settings.reader.model, settings.reader.models_folder).digest
        engine = open_parts(settings).engine
        with reading(engine) as connection:
            workers = workers_seen(connection, SharedClock(engine)(), RECENTLY)
        for worker in workers:
            if worker.model_digest != digest:
                told = f"reads with {worker.model}, digest {worker.model_digest[:12]}: not the model of these settings"
                remedy = "restart serve and all workers (docs/operating.md, Change the model)"
                yield Finding(f"worker {worker.owner}", ok=True, detail=told, remedy=remedy, warns=True)


def _scoring(settings: Settings) -> Iterator[Finding]:
    """Yield what the site makes of scores, and this model does not go with.

    A prevalence tells nothing without a calibration; limits for a second look may be of another model's scores, where this
    one has not read enough to have some.
    """
    from ai.models import open_model  # noqa: PLC0415 (as above)
    from ai.words import counted  # noqa: PLC0415 (as above)
    from node.cli.recall import FEW, RECENT, read_here  # noqa: PLC0415 (as above)
    from node.parts import open_parts  # noqa: PLC0415 (as above)
    from storage.database import reading  # noqa: PLC0415 (as above)

    chosen = settings.reader
    with suppress(AIError, StorageError):  # the checks of model and database say it
        model = open_model(chosen.model, chosen.models_folder)
        if chosen.prevalence and not model.card.calibration:
            told = f"no probabilities are told: the card of {model.card.name} has no calibration"
            remedy = "mammonode calibrate makes one, or set it to 0 (docs/calibration.md)"
            yield Finding("reader.prevalence", ok=True, detail=told, remedy=remedy, warns=True)
        if not chosen.recall:
            return
        with reading(open_parts(settings).engine) as connection:
            digests = [each.model_digest for each in read_here(connection, RECENT)]
        ours = digests.count(model.digest)
        if ours < min(FEW, len(digests)):
            told = f"of {counted(len(digests), 'exam')} read in {RECENT.days} days this model has read {ours}"
            remedy = "limits are of one model's scores: mammonode recall counts anew (docs/calibration.md)"
            yield Finding("reader.recall", ok=True, detail=told, remedy=remedy, warns=True)


def _dated(settings: Settings) -> Iterator[Finding]:
    from node.intake import utc_now  # noqa: PLC0415 (as above)
    from node.timekeeping import clock_state  # noqa: PLC0415 (as above)
    from node.tls import Transport  # noqa: PLC0415 (as above)
    from node.validity import files_of, is_ending  # noqa: PLC0415 (as above)

    try:
        transport = Transport.open(settings.tls)
        files = [*transport.files, *files_of(settings)]
    except NodeError as error:
        files = []
        yield Finding("tls", ok=False, detail=str(error), remedy="docs/tls.md says which files there are")
    else:
        if fault := transport.own_fault():
            told = f"this node, at its own door with tls.certificate: {fault}"
            remedy = "it must be one that tls.ca takes, for servers and for clients, with its chain: docs/tls.md"
            yield Finding("tls", ok=False, detail=told, remedy=remedy)
    for dated in files:
        yield Finding(
            dated.what,
            ok=dated.ends > utc_now(),
            detail=f"{dated.subject}, until {dated.ends:%Y-%m-%d}",
            remedy="renew it, then systemctl reload mammonode",
            warns=dated.ends > utc_now() and is_ending(dated, utc_now()),
        )
    for token in _tokens(settings):
        yield Finding(
            f"token {token.subject}",
            ok=True,
            detail=f"until {token.ends:%Y-%m-%d}",
            remedy=f"once it has ended, mammonode tokens add {token.subject} makes the next",
            warns=is_ending(token, utc_now()),
        )
    clock = clock_state()
    yield Finding("clock", ok=True, detail=clock.words, remedy="timedatectl; chronyc tracking", warns=clock.is_wrong)


def _tokens(settings: Settings) -> "list[Dated]":
    from node.intake import utc_now  # noqa: PLC0415 (as above)
    from node.parts import open_parts  # noqa: PLC0415 (as above)
    from node.validity import tokens_of  # noqa: PLC0415 (as above)

    with suppress(StorageError):  # the check of the database says it
        return tokens_of(open_parts(settings).engine, utc_now())
    return []


def _echo(settings: Settings, destination: Destination) -> Finding:
    from node.service import carrier  # noqa: PLC0415 (as above)
    from node.tls import Transport  # noqa: PLC0415 (as above)

    try:
        result = carrier(settings, destination, Transport.open(settings.tls)).echo(destination)
    except NodeError as error:
        return Finding(f"destination {destination.name}", ok=False, detail=str(error), remedy="mend [tls] first")
    known_by = "our credentials" if destination.web else f"{settings.dicom.ae_title} as a sender"
    remedy = f"is it running, and does it know {known_by}?"
    if str(HandshakeFailed()) in result.message:
        remedy = (
            f"openssl s_client -connect {destination.host}:{destination.port} -showcerts shows its own; docs/tls.md"
        )
    return Finding(
        f"destination {destination.name}",
        ok=result.answered,
        detail=f"{destination.where}, gets {', '.join(destination.mix.objects)}"
        + (result.message and f": {result.message}")
        + _report_hint(settings, destination),
        remedy=remedy,
    )


def _report_hint(settings: Settings, destination: Destination) -> str:
    commits = destination.proof in {Proof.COMMITMENT, Proof.COMMITMENT_OR_FIND}
    called = settings.dicom.allow_unknown_callers or any(
        caller.ae_title.strip() == destination.ae_title.strip() for caller in settings.dicom.callers
    )
    if not commits or called:
        return ""
    return (
        f"; its storage commitment reports are taken on our associations only: add {destination.ae_title} to callers "
        "in [dicom] if it opens its own"
    )


def echo(
    destination: Annotated[str, typer.Argument(help="Only this destination.")] = "",
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """C-ECHO the destinations: tell which of them answer, and what to do about the others."""
    settings = load_settings(config)
    chosen = [d for d in settings.destinations if destination in ("", d.name)]
    if not chosen:
        typer.secho("No such destination in the settings.", err=True)
        raise typer.Exit(1)
    findings = [_echo(settings, d) for d in chosen]
    _report(findings, None, as_json=as_json)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def demo(
    *,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its files; emptied first.")] = Path("demo"),
    synthetic: Annotated[bool, typer.Option(help="Only the synthetic exam.")] = False,
) -> None:
    """Run the main job on real exams: send by C-STORE, read, and see what a PACS receives."""
    from node.demo import run_demo  # noqa: PLC0415 (as above)

    raise typer.Exit(run_demo(folder, synthetic_only=synthetic))
