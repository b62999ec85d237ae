"""What the console refuses of an OpenID provider's answers: a provider of our own that lies in one way at a time."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from iot_platform.api.oidc import Login, Provider, Refused
from iot_platform.api.problems import Problem
from iot_platform.settings import Settings

CALLBACK = "http://127.0.0.1:8000/api/v1/oidc/callback"
SECRET = "a secret of the console at its provider"


@dataclass
class LyingProvider:
    """Answers as it should, but for what a test changes: `claims` and `token` change the id_token and the token answer."""

    issuer: str = ""
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"}))
    published: list[ECKey] | None = None
    header: dict[str, str] = field(default_factory=lambda: {"alg": "ES256", "kid": "one"})
    signing: Any = None
    claims: Callable[[dict[str, Any]], object] = lambda _: None
    token: Callable[[dict[str, Any]], object] = lambda _: None
    metadata: dict[str, Any] = field(default_factory=dict)
    nonce: str = ""
    asked: dict[str, list[str]] = field(default_factory=dict)

    def document(self, path: str) -> dict[str, Any] | None:
        """What it answers to a GET."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
                **self.metadata,
            }
        if path == "/jwks":
            return {"keys": [key.as_dict(private=False) for key in self.published or [self.key]]}
        return None

    def exchange(self, asked: dict[str, list[str]]) -> dict[str, Any]:
        """What it answers to a code."""
        self.asked = asked
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "console", "sub": "4711", "iat": now, "exp": now + 300, "nonce": self.nonce,
                  "email": "Lin@Example.com", "email_verified": True}  # fmt: skip
        self.claims(claims)
        signed = jwt.encode(self.header, claims, self.signing or self.key, algorithms=[self.header["alg"]])
        answer = {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": signed}
        self.token(answer)
        return answer


@pytest.fixture
def liar() -> Iterator[LyingProvider]:
    provider = LyingProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(provider.document(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(provider.exchange(parse_qs(body)))

        def _answer(self, document: dict[str, Any] | None) -> None:
            body = json.dumps(document or {}).encode()
            self.send_response(200 if document is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.issuer = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield provider
        server.shutdown()
        thread.join()


def console(liar: LyingProvider, tmp_path: Path, **more: Any) -> Provider:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    return Provider(Settings(oidc_issuer=liar.issuer, oidc_client_id="console", oidc_client_secret_file=secret, **more), b"k" * 32)


def log_in(provider: Provider, liar: LyingProvider, **answer: str) -> tuple[str, Any]:
    """Leave, and come back with a code; `answer` says what else comes."""

    async def flow() -> tuple[str, Any]:
        url, cookie = await provider.leave(CALLBACK, "/t/1968193631353446400")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["code_challenge_method"], asked["redirect_uri"], asked["response_type"]) == ("S256", CALLBACK, "code")
        assert "openid" in asked["scope"]
        liar.nonce = asked["nonce"]
        return await provider.come_back(cookie, {"code": "the code", "state": asked["state"], **answer})

    return asyncio.run(flow())


def test_a_login_that_is_as_it_should_be(liar: LyingProvider, tmp_path: Path) -> None:
    provider = console(liar, tmp_path)
    return_to, claims = log_in(provider, liar)
    assert (return_to, claims["sub"], provider.name(claims)) == ("/t/1968193631353446400", "4711", "lin@example.com")
    assert liar.asked["code"] == ["the code"]
    assert len(liar.asked["code_verifier"][0]) >= 43
    # The provider changes its key and keeps its name: the new one is fetched.
    liar.key = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"})
    assert log_in(provider, liar)[1]["sub"] == "4711"


def another_key(liar: LyingProvider) -> None:
    liar.published = [ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"})]


def our_secret(liar: LyingProvider) -> None:
    liar.header, liar.signing = {"alg": "HS256"}, OctKey.import_key(SECRET)


def claim(**changed: Any) -> Callable[[LyingProvider], None]:
    """Changes claims; None leaves one out."""

    def lie(liar: LyingProvider) -> None:
        def change(claims: dict[str, Any]) -> None:
            for name, value in changed.items():
                if value is None:
                    claims.pop(name)
                else:
                    claims[name] = value

        liar.claims = change

    return lie


def no_id_token(liar: LyingProvider) -> None:
    liar.token = lambda answer: answer.pop("id_token")


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(another_key, id="signed by another key"),
        pytest.param(our_secret, id="signed by our own secret"),
        pytest.param(no_id_token, id="no id_token"),
        pytest.param(claim(nonce="another"), id="nonce of another login"),
        pytest.param(claim(nonce=None), id="no nonce"),
        pytest.param(claim(iss="https://evil.example"), id="another issuer"),
        pytest.param(claim(iss=None), id="no issuer"),
        pytest.param(claim(aud="another"), id="for another client"),
        pytest.param(claim(aud=None), id="for nobody"),
        pytest.param(claim(aud=["console", "another"], azp="another"), id="for another client of several"),
        pytest.param(claim(exp=int(time.time()) - 3600), id="ended"),
        pytest.param(claim(exp=None), id="never ends"),
        pytest.param(claim(iat=int(time.time()) - 86400), id="from yesterday"),
        pytest.param(claim(iat=int(time.time()) + 86400), id="from tomorrow"),
        pytest.param(claim(iat=None), id="from no time"),
        pytest.param(claim(sub=None), id="about nobody"),
        pytest.param(claim(sub=""), id="about an empty name"),
    ],
)
def test_what_is_not_as_it_must_be_is_refused(liar: LyingProvider, tmp_path: Path, lie: Callable[[LyingProvider], None]) -> None:
    lie(liar)
    with pytest.raises(Refused) as refused:
        log_in(console(liar, tmp_path), liar)
    assert refused.value.slug == "login-refused"


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        ({"state": "another"}, "login-expired"),
        ({"state": ""}, "login-expired"),
        ({"iss": "https://evil.example"}, "login-refused"),
        ({"error": "access_denied"}, "login-refused"),
        ({"code": ""}, "login-refused"),
    ],
)
def test_an_answer_that_belongs_to_no_login_is_refused(liar: LyingProvider, tmp_path: Path, answer: dict[str, str], slug: str) -> None:
    with pytest.raises(Refused) as refused:
        log_in(console(liar, tmp_path), liar, **answer)
    assert refused.value.slug == slug


def test_a_provider_that_says_who_it_is_must_say_so(liar: LyingProvider, tmp_path: Path) -> None:
    liar.metadata["authorization_response_iss_parameter_supported"] = True
    with pytest.raises(Refused, match="another provider"):
        log_in(console(liar, tmp_path), liar)
    assert log_in(console(liar, tmp_path), liar, iss=liar.issuer)[1]["sub"] == "4711"


def test_a_cookie_that_we_did_not_make_or_long_ago_begins_nothing(liar: LyingProvider, tmp_path: Path) -> None:
    provider = console(liar, tmp_path)
    old = Login("s", "n", "v", CALLBACK, "/", int(time.time()) - 3600)
    elsewhere = Provider(Settings(), b"x" * 32)._signed(Login("s", "n", "v", CALLBACK, "/", int(time.time())))
    for cookie in ("", "x", ".", "\x00.\x00", provider._signed(old), elsewhere):
        with pytest.raises(Refused) as refused:
            asyncio.run(provider.come_back(cookie, {"code": "c", "state": "s"}))
        assert refused.value.slug == "login-expired"


def test_a_name_comes_from_what_the_provider_vouches_for(liar: LyingProvider, tmp_path: Path) -> None:
    provider = console(liar, tmp_path)
    for claims in ({}, {"email": 5}, {"email": "lin@example.com"}, {"email": "lin@example.com", "email_verified": "true"}):
        with pytest.raises(Refused):
            provider.name(claims)
    assert console(liar, tmp_path, oidc_name_claim="preferred_username").name({"preferred_username": "Lin"}) == "lin"


def test_a_provider_that_is_away_or_calls_itself_otherwise_is_told_of(liar: LyingProvider, tmp_path: Path) -> None:
    liar.metadata["issuer"] = "https://another.example"
    with pytest.raises(Problem) as told:
        log_in(console(liar, tmp_path), liar)
    assert (told.value.status, "IOT_OIDC_ISSUER" in told.value.detail) == (503, True)
    away = Provider(Settings(oidc_issuer="http://127.0.0.1:9", oidc_client_id="console"), b"k" * 32)
    with pytest.raises(Problem) as told:
        asyncio.run(away.leave(CALLBACK, "/"))
    assert told.value.status == 503
