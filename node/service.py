"""Composition root: settings → what opens associations, doors and worklist."""

import hashlib
from datetime import timedelta

from config.settings import Destination, Settings
from node.audit.notes import NOTHING, Notes
from node.errors import NotProtected
from node.intake import Receiver, utc_now
from node.parts import Parts
from node.scu import Carrier, Sender
from node.tls import Transport
from node.user_agent import AskedOverHTTP, UserAgent
from node.web.access import Authentication, ThisMachine
from node.web.app import Counts, Routes, create_app
from node.web.bearer import OpenIDConnect, Sessions, Tokens, Unknown, Uses
from node.web.certificates import Certificates
from node.web.retrieving import Retrieval
from node.web.server import WebDoor
from node.worklist import Worklist
from storage.database import reading
from storage.tokens import any_token

DRAIN_SECONDS = 30.0


def sender(settings: Settings, transport: Transport) -> Sender:
    """Return the part that opens associations."""
    return Sender(settings.dicom, transport)


def carrier(settings: Settings, destination: Destination, transport: Transport) -> Carrier:
    """Return the part that takes results to a destination, and asks whether it is there."""
    if destination.web:
        return UserAgent(settings.dicom)
    if destination.query:
        return AskedOverHTTP(sender(settings, transport), UserAgent(settings.dicom))
    return sender(settings, transport)


def content_digest(settings: Settings) -> str:
    """Return the digest of every setting that changes the content of result objects (rule R1).

    The model's own digest covers its thresholds.
    """
    return hashlib.sha256(f"one_breast_suffices={settings.exam.one_breast_suffices}".encode()).hexdigest()


def worklist_of(parts: Parts, receiver: Receiver) -> Worklist:
    """Return the worklist, which retrieves from the sources of the settings."""
    settings = parts.settings
    agent = UserAgent(settings.dicom)
    retrieval = Retrieval(agent, settings.worklist.sources, receiver, parts.store.incoming)
    return Worklist(parts.engine, parts.queue, retrieval, settings.delivery.policy, utc_now)


def web_door(parts: Parts, routes: Routes, counts: Counts, uses: Uses, notes: Notes = NOTHING) -> WebDoor | None:
    """Return the HTTP door, not yet open, or None where the settings say that there is none.

    Parameters
    ----------
    routes
        What it answers.
    counts
        Where its answers are counted.
    uses
        Is told which tokens are used.
    notes
        Is told who did what, for the audit trail.

    Raises
    ------
    NotProtected
        When others than this machine could reach it, and no way to tell who they are is set up.
    """
    http = parts.settings.http
    if not http.enabled:
        return None
    require_protection(parts)
    return WebDoor(http, create_app(http, ways_in(parts, uses), routes, counts, notes), DRAIN_SECONDS)


def require_protection(parts: Parts) -> None:
    """Refuse an HTTP door that others than this machine reach while nobody has to say who they are.

    Raises
    ------
    NotProtected
        When no way to tell who they are is set up.
    """
    http = parts.settings.http
    with reading(parts.engine) as connection:
        protected = any_token(connection, utc_now()) or bool(http.oidc_issuer or http.client_ca)
    if not protected and not http.is_local:
        raise NotProtected(f"http.bind = {http.bind}")


def ways_in(parts: Parts, uses: Uses) -> list[Authentication]:
    """Return how callers over HTTP are known."""
    http = parts.settings.http
    ways: list[Authentication] = [Tokens(parts.engine, utc_now, uses)]
    if http.oidc_issuer:
        ways.append(OpenIDConnect(http))
    lasts = timedelta(hours=http.session_hours)
    ways += [Unknown(), Certificates(http.clients), Sessions(parts.engine, utc_now, uses, lasts)]
    return [*ways, ThisMachine()] if http.trust_local else ways
