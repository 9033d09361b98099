"""Who may: tokens and sessions on both databases, an identity provider over HTTP, certificates over TLS, other sites."""

import base64
import hmac
import http.server
import json
import shutil
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import Engine, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config.settings import Client, Http
from node.cli import app as cli
from node.errors import CertificateUnusable
from node.tls import subject
from node.web.access import Authentication, Guarded, Scope, ThisMachine, caller
from node.web.app import Counts, Routes, create_app
from node.web.bearer import COOKIE, OpenIDConnect, Sessions, Tokens, Unknown, Uses
from node.web.certificates import Certificates
from node.web.limits import Buckets
from node.web.server import WebDoor
from storage.database import reading, writing
from storage.errors import DatabaseUnavailable, NoSuchToken, TokenExists
from storage.tables import sessions, tokens
from storage.tokens import add_token, find_token, list_tokens, open_session, revoke_token
from tests.authority import Authority
from tests.doors import Clock
from tests.peers import eventually

DAY = timedelta(days=1)


def who(request: Request) -> Response:
    identity = caller(request)
    assert identity is not None
    return PlainTextResponse(f"{identity.name}: {' '.join(sorted(identity.scopes))}")


def an_app(*ways: Authentication, **settings: Any) -> Starlette:
    routes = [
        Guarded(f"/{scope}", who, needs=scope, methods=methods)
        for scope, methods in ((Scope.READ, ["GET"]), (Scope.STORE, ["POST"]), (Scope.OPERATE, ["POST"]))
    ]
    return create_app(Http(**settings), ways, Routes(pages=routes), Counts())


@dataclass
class Site:
    """A door that takes tokens, on a clock that stands until it is put forward."""

    engine: Engine
    clock: Clock
    uses: Uses

    def token(self, name: str, *scopes: Scope, lasts: timedelta | None = None) -> str:
        now = self.clock()
        with writing(self.engine) as connection:
            return add_token(connection, name, scopes, now, now + lasts if lasts else None)

    def session(self, secret: str, lasts: timedelta = DAY) -> str:
        with writing(self.engine) as connection:
            token = find_token(connection, secret, self.clock())
            assert token
            return open_session(connection, token, self.clock(), lasts)

    def revoke(self, name: str) -> None:
        with writing(self.engine) as connection:
            revoke_token(connection, name, self.clock())

    def used(self) -> datetime | None:
        with reading(self.engine) as connection:
            return list_tokens(connection)[0].used_at

    def client(self, **settings: Any) -> TestClient:
        ways = (
            Tokens(self.engine, self.clock, self.uses),
            Unknown(),
            Sessions(self.engine, self.clock, self.uses, DAY),
        )
        return TestClient(an_app(*ways, **settings), raise_server_exceptions=False)


@pytest.fixture
def site(engine: Engine) -> Site:
    return Site(engine, Clock(), Uses(engine))


def showing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def carrying(session: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={session}"}


# --- tokens and sessions


def test_a_token_opens_what_it_was_made_for_until_it_ends(site: Site) -> None:
    secret = site.token("viewer", Scope.READ, lasts=DAY)
    client = site.client()
    assert client.get("/read", headers=showing(secret)).text == "viewer: read"
    assert client.post("/store", headers=showing(secret)).status_code == 403
    site.clock.forward(DAY)
    answer = client.get("/read", headers=showing(secret))
    assert (answer.status_code, answer.json()["status"]) == (401, 401)


def test_a_token_that_is_revoked_opens_nothing_from_then_on_nor_do_its_sessions(site: Site) -> None:
    secret = site.token("viewer", Scope.READ)
    cookie = carrying(site.session(secret))
    client = site.client()
    assert client.get("/read", headers=cookie).status_code == 200
    site.revoke("viewer")
    assert client.get("/read", headers=showing(secret)).status_code == 401
    assert client.get("/read", headers=cookie).status_code == 401
    with pytest.raises(NoSuchToken):
        site.revoke("viewer")


@pytest.mark.parametrize(
    "header", ["Bearer mmn_wrong", "Bearer other", "Bearer ", "Basic dXNlcjpwdw==", "mmn_x", "Bearer \udce9"]
)
def test_what_is_no_valid_token_opens_nothing_although_this_machine_asks(site: Site, header: str) -> None:
    ways = (Tokens(site.engine, site.clock, site.uses), Unknown(), ThisMachine())
    client = TestClient(
        an_app(*ways), raise_server_exceptions=False, client=("127.0.0.1", 1), base_url="http://localhost"
    )
    assert client.get("/read").status_code == 200
    raw = header.encode("utf-8", "surrogateescape")
    assert client.get("/read", headers={b"authorization": raw}).status_code == 401


def test_only_the_digest_of_a_token_is_kept(site: Site) -> None:
    secret = site.token("viewer", Scope.READ)
    with reading(site.engine) as connection:
        [row] = connection.execute(select(tokens)).mappings()
    assert secret not in str(dict(row))
    assert secret.removeprefix("mmn_") not in str(dict(row))
    assert len(secret) > 40


def test_names_are_unique_among_what_is_in_force(site: Site) -> None:
    first = site.token("viewer", Scope.READ, lasts=DAY)
    with pytest.raises(TokenExists):
        site.token("viewer", Scope.READ)
    site.clock.forward(DAY)
    second = site.token("viewer", Scope.STORE)
    client = site.client()
    assert client.get("/read", headers=showing(first)).status_code == 401
    assert client.post("/store", headers=showing(second)).text == "viewer: store"


def test_the_last_use_of_a_token_is_known_to_some_minutes(site: Site) -> None:
    secret = site.token("viewer", Scope.READ)
    client = site.client()
    used = []
    for _ in range(3):
        client.get("/read", headers=showing(secret))
        site.uses.write_down()
        used.append(site.used())
        site.clock.forward(timedelta(minutes=4))
    assert used[0] == used[1]
    assert used[2] == used[0] + timedelta(minutes=8) if used[0] else False


def test_a_token_opens_what_it_may_while_the_database_takes_no_writes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_engine: Engine) -> NoReturn:
        raise DatabaseUnavailable("database or disk is full")

    secret = site.token("viewer", Scope.READ)
    cookie = carrying(site.session(secret))
    client = site.client()
    with monkeypatch.context() as patch:
        patch.setattr("node.web.bearer.writing", full)
        assert client.get("/read", headers=showing(secret)).status_code == 200
        assert client.get("/read", headers=cookie).status_code == 200
        with pytest.raises(DatabaseUnavailable):
            site.uses.write_down()
    assert site.used() is None
    used = site.clock()
    site.clock.forward(timedelta(minutes=1))
    site.uses.write_down()
    assert site.used() == used


def test_a_session_lasts_no_longer_because_the_clock_was_put_back(site: Site) -> None:
    cookie = carrying(site.session(site.token("viewer", Scope.READ)))
    site.clock.forward(-timedelta(hours=1))
    assert site.client().get("/read", headers=cookie).status_code == 401


def test_a_session_ends_with_its_time_or_with_its_token_and_is_forgotten(site: Site) -> None:
    secret = site.token("viewer", Scope.READ, lasts=timedelta(hours=3))
    short, long = site.session(secret, timedelta(hours=1)), site.session(secret, timedelta(hours=9))
    client = site.client()
    site.clock.forward(timedelta(hours=1))
    assert client.get("/read", headers=carrying(short)).status_code == 401
    assert client.get("/read", headers=carrying(long)).status_code == 200
    site.clock.forward(timedelta(hours=2))
    assert client.get("/read", headers=carrying(long)).status_code == 401
    site.session(site.token("other", Scope.READ))
    with reading(site.engine) as connection:
        assert len(connection.execute(select(sessions)).all()) == 1


# --- other sites


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://node.example"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://node.example:81"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({}, 403),
    ],
)
def test_another_site_can_do_nothing_with_a_session(site: Site, headers: dict[str, str], expected: int) -> None:
    cookie = carrying(site.session(site.token("operator", Scope.OPERATE)))
    client = TestClient(site.client().app, raise_server_exceptions=False, base_url="http://node.example")
    assert client.post("/operate", headers=cookie | headers).status_code == expected


def test_a_program_with_a_token_says_nothing_of_sites(site: Site) -> None:
    assert site.client().post("/store", headers=showing(site.token("modality", Scope.STORE))).status_code == 200


# --- too much


def test_a_caller_that_asks_too_often_has_to_wait_and_others_have_not(site: Site) -> None:
    one, other = site.token("one", Scope.READ), site.token("other", Scope.READ)
    client = site.client(requests_per_second=0.001)
    assert client.get("/read", headers=showing(one)).status_code == 200
    answer = client.get("/read", headers=showing(one))
    assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
    assert client.get("/read", headers=showing(other)).status_code == 200
    assert client.get("/livez").status_code == 200


def test_whoever_guesses_has_to_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.web.app.GUESSES_A_SECOND", 0.0)  # however slow this machine is
    secret = site.token("viewer", Scope.READ)
    client = site.client()
    codes = [client.get("/read", headers=showing(f"mmn_{guess}")).status_code for guess in range(25)]
    assert codes == [401] * 20 + [429] * 5
    assert client.get("/read", headers=showing(secret)).status_code == 429
    assert client.get("/read").status_code == 401  # shows nothing: is told to log in


def test_a_bucket_fills_again_up_to_its_size() -> None:
    now = 0.0
    buckets = Buckets(2, 4, lambda: now)
    assert [buckets.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert buckets.take("b")
    now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    now = 1000
    assert [buckets.take("a") for _ in range(5)] == [True] * 4 + [False]


# --- an identity provider


@dataclass
class Provider:
    """An identity provider: its keys, and how often it was asked for them."""

    address: str
    keys: dict[str, rsa.RSAPrivateKey]
    asked: list[str]

    def token(self, key: str = "one", algorithm: str = "RS256", **changes: Any) -> str:
        now = datetime.now(UTC)
        claims = {"iss": self.address, "aud": "mammonode", "sub": "pacs", "exp": now + timedelta(minutes=5)}
        claims |= {"scope": "openid mammonode:read"} | changes
        told = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(told, self.keys[key], algorithm, headers={"kid": key})


@contextmanager
def a_provider(*, broken: bool = False) -> Iterator[Provider]:
    keys = {name: rsa.generate_private_key(65537, 2048) for name in ("one", "other")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path)
            if broken:
                self.send_error(500)
                return
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(keys["one"].public_key()))
            documents = {
                "/.well-known/openid-configuration": {
                    "issuer": provider.address, "jwks_uri": f"{provider.address}/keys"
                },
                "/keys": {"keys": [{**jwk, "kid": "one", "use": "sig", "alg": "RS256"}]},
            }  # fmt: skip
            body = json.dumps(documents[self.path]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_address[1]}", keys, [])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def an_oidc_client(provider: Provider, **settings: Any) -> TestClient:
    http = Http(oidc_issuer=provider.address, oidc_audience="mammonode", **settings)
    return TestClient(an_app(OpenIDConnect(http), Unknown()), raise_server_exceptions=False)


def test_a_provider_tells_who_calls_and_what_he_may_and_is_asked_once() -> None:
    with a_provider() as provider:
        client = an_oidc_client(provider)
        for _ in range(3):
            assert client.get("/read", headers=showing(provider.token())).text == "pacs: read"
        assert client.post("/store", headers=showing(provider.token())).status_code == 403
        everything = showing(provider.token(scope=["mammonode:store", "mammonode:operate", "mammonode:all", 7]))
        assert client.post("/store", headers=everything).text == "pacs: operate store"
        assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


def test_another_claim_may_tell_the_scopes() -> None:
    with a_provider() as provider:
        client = an_oidc_client(provider, oidc_claim="roles")
        assert client.get("/read", headers=showing(provider.token(roles=["mammonode:read"]))).status_code == 200
        assert client.get("/read", headers=showing(provider.token())).status_code == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
        {"exp": None},
        {"sub": None},
        {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
        {"key": "other"},
    ],
)
def test_a_token_that_is_not_the_providers_for_us_now_opens_nothing(changes: dict[str, Any]) -> None:
    with a_provider() as provider:
        answer = an_oidc_client(provider).get("/read", headers=showing(provider.token(**changes)))
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


def test_a_token_without_a_signature_or_with_one_of_another_kind_opens_nothing() -> None:
    with a_provider() as provider:
        client = an_oidc_client(provider)
        claims = jwt.decode(provider.token(), options={"verify_signature": False})
        public = provider.keys["one"].public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        shared = jwt.encode(claims, "x" * 32, "HS256", headers={"kid": "one"}).rpartition(".")[0]
        mac = hmac.digest(pem, shared.encode(), "sha256")
        for forged in (
            jwt.encode(claims, "", "none", headers={"kid": "one"}),
            f"{shared}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
            jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "one"}),
            "a.b.c",
        ):
            assert client.get("/read", headers=showing(forged)).status_code == 401


def test_a_provider_that_does_not_answer_is_not_asked_for_every_request() -> None:
    with a_provider(broken=True) as provider:
        client = an_oidc_client(provider)
        for _ in range(4):
            assert client.get("/read", headers=showing(provider.token())).status_code == 401
        assert len(provider.asked) == 1


# --- certificates


def trusting(authority: Authority, own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if own:
        context.load_cert_chain(own)
    return context


def test_certificates_open_what_the_settings_say_and_only_of_the_authority(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    clients = (
        Client(subject=r"CN=pacs,O=Example\, Hospital", scopes=(Scope.READ,)),
        Client(subject="modality", scopes=(Scope.STORE,)),
    )
    settings = Http(
        port=0, certificate=str(authority.signed("localhost")), client_ca=str(authority.path), clients=clients
    )
    door = WebDoor(settings, an_app(Certificates(clients)))
    door.start()
    try:
        base = f"https://localhost:{door.port}"
        by = {name: trusting(authority, authority.signed(name)) for name in ("pacs", "modality", "stranger")}
        assert httpx2.get(f"{base}/read", verify=by["pacs"], timeout=60).text == r"CN=pacs,O=Example\, Hospital: read"
        assert httpx2.post(f"{base}/store", verify=by["pacs"], timeout=60).status_code == 403
        assert httpx2.post(f"{base}/store", verify=by["modality"], timeout=60).text == "modality: store"
        assert httpx2.get(f"{base}/read", verify=by["stranger"], timeout=60).status_code == 401
        assert httpx2.get(f"{base}/read", verify=trusting(authority), timeout=60).status_code == 401
        for refused, why in (
            (other.signed("pacs"), "unable to get"),
            (authority.signed("pacs", days=-1), "has expired"),
        ):
            told = _refusal(f"{base}/read", trusting(authority, refused))
            assert told["event"] == "client certificate refused"
            assert why in told["cause"]
    finally:
        door.stop()


def _refusal(url: str, shown: ssl.SSLContext) -> Mapping[str, Any]:
    """Return what the door has told of a caller whom it refuses; the lines of requests before may come late."""

    def told() -> list[Mapping[str, Any]]:
        return [line for line in logs if line["event"] != "request"]

    with capture_logs() as logs:
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url, verify=shown, timeout=60)
        assert eventually(lambda: bool(told()))
    (line,) = told()
    return line


def test_an_issuing_authority_opens_without_its_root(tmp_path: Path) -> None:
    root = Authority(tmp_path, "root")
    issuing = Authority(tmp_path, "issuing", issuer=root)
    clients = (Client(subject="pacs", scopes=(Scope.READ,)),)
    certificate, client_ca = str(root.signed("localhost")), str(issuing.path)
    door = WebDoor(
        Http(port=0, certificate=certificate, client_ca=client_ca, clients=clients), an_app(Certificates(clients))
    )
    door.start()
    try:
        url = f"https://localhost:{door.port}/read"
        assert httpx2.get(url, verify=trusting(root, issuing.signed("pacs")), timeout=60).text == "pacs: read"
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url, verify=trusting(root, root.signed("pacs")), timeout=60)
    finally:
        door.stop()


def test_another_authority_of_clients_is_taken_up_when_the_files_are_read_again(tmp_path: Path) -> None:
    former, new = Authority(tmp_path, "former"), Authority(tmp_path, "new")
    client_ca = tmp_path / "clients.pem"
    shutil.copy(former.path, client_ca)
    clients = (Client(subject="pacs", scopes=(Scope.READ,)),)
    certificate = str(former.signed("localhost"))
    door = WebDoor(
        Http(port=0, certificate=certificate, client_ca=str(client_ca), clients=clients), an_app(Certificates(clients))
    )
    door.start()
    try:
        url = f"https://localhost:{door.port}/read"
        shutil.copy(new.path, client_ca)
        assert httpx2.get(url, verify=trusting(former, former.signed("pacs")), timeout=60).text == "pacs: read"
        door.renew()
        assert httpx2.get(url, verify=trusting(former, new.signed("pacs")), timeout=60).text == "pacs: read"
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url, verify=trusting(former, former.signed("pacs")), timeout=60)
        client_ca.write_text("none")
        with pytest.raises(CertificateUnusable, match="client_ca"):
            door.renew()
        assert httpx2.get(url, verify=trusting(former, new.signed("pacs")), timeout=60).text == "pacs: read"
    finally:
        door.stop()


def test_a_subject_is_written_as_rfc_2253_says() -> None:
    parts = ((("countryName", "DE"),), (("organizationName", "A+B, C"),), (("commonName", "#x"),))
    assert subject({"subject": parts}) == r"CN=\#x,O=A\+B\, C,C=DE"
    assert subject({}) == ""


# --- the command line


def test_the_command_line_makes_lists_and_revokes_tokens(tmp_path: Path) -> None:
    config = tmp_path / "mammonode.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path / "store"}"\n')

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["tokens", *arguments, "--config", str(config)])

    made = run("add", "viewer", "--scope", "read", "--scope", "operate", "--days", "30")
    assert made.exit_code == 0
    assert made.stdout.strip().startswith("mmn_")
    assert "read, operate, until" in made.stderr
    [listed] = json.loads(run("list", "--json").stdout)
    assert (listed["name"], listed["scopes"], listed["valid"]) == ("viewer", ["read", "operate"], True)
    assert made.stdout.strip() not in run("list").stdout
    assert run("add", "nobody", "--scope", "all").exit_code == 2
    assert isinstance(run("add", "viewer", "--scope", "read").exception, TokenExists)
    assert run("revoke", "viewer").exit_code == 0
    assert "revoked" in run("list").stdout
    assert isinstance(run("revoke", "viewer").exception, NoSuchToken)
