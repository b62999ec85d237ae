"""Logging in through an OpenID provider: authorization code with PKCE, and every check of the answer that the library leaves to us."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import httpx2
import msgspec
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError

from iot_platform.api.problems import Problem
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

if TYPE_CHECKING:
    from iot_platform.api.state import State

log = get_logger(__name__)

COOKIE: Final = "iot_oidc"
PATH: Final = "/api/v1/oidc"
LOGIN_SECONDS: Final = 600
"""From leaving for the provider to coming back."""
LEEWAY_SECONDS: Final = 60
"""Between the provider's clock and ours."""
METADATA_SECONDS: Final = 3600
ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"})
"""Signatures by a key that only the provider has. Never `none`, nor one by our secret."""
_TIMEOUT: Final = 10.0
_FIND: Final = """
SELECT user_id FROM console_user WHERE oidc_subject = %(subject)s AND NOT disabled"""
_BIND: Final = """
UPDATE console_user SET oidc_subject = %(subject)s
WHERE name = %(name)s AND oidc_subject IS NULL AND password_hash IS NULL AND NOT disabled RETURNING user_id"""


class Refused(Exception):  # noqa: N818  an outcome, told to the one who tries
    """The login does not come about; the slug names the sentence that the login page shows."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.slug = slug


class Login(msgspec.Struct, frozen=True):
    """What the browser keeps between leaving and coming back: signed, so that nobody else put it there."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    return_to: str
    begun_at: int


class Provider:
    """The provider that the settings name. Keys are fetched with each login: a provider may change one and keep its name."""

    def __init__(self, settings: Settings, key: bytes) -> None:
        self._settings = settings
        self._key = hmac.new(key, b"oidc", hashlib.sha256).digest()
        self._client: Any = None
        self._made_at = 0.0

    @property
    def enabled(self) -> bool:
        """Whether the settings name one."""
        return bool(self._settings.oidc_issuer)

    def _connected(self) -> Any:
        """The library's client; made anew now and then, because it keeps the provider's metadata for ever."""
        if self._client is None or time.monotonic() - self._made_at > METADATA_SECONDS:
            settings = self._settings
            self._client = OAuth().register(
                "provider",
                client_id=settings.oidc_client_id,
                client_secret=_secret(settings.oidc_client_secret_file),
                server_metadata_url=f"{settings.oidc_issuer}/.well-known/openid-configuration",
                client_kwargs={"scope": settings.oidc_scope, "code_challenge_method": "S256", "timeout": _TIMEOUT},
            )
            self._made_at = time.monotonic()
        return self._client

    async def _metadata(self) -> tuple[Any, dict[str, Any]]:
        client = self._connected()
        try:
            metadata = await client.load_server_metadata()
        except (httpx2.HTTPError, ValueError) as error:
            self._client = None
            log.warning("oidc: the provider does not answer", issuer=self._settings.oidc_issuer, error=str(error) or type(error).__name__)
            raise Problem("provider-unavailable") from error
        if metadata.get("issuer") != self._settings.oidc_issuer:
            self._client = None
            log.warning("oidc: the provider calls itself otherwise", issuer=metadata.get("issuer"), expected=self._settings.oidc_issuer)
            raise Problem("provider-unavailable", "IOT_OIDC_ISSUER is not what the provider calls itself")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS]
        return client, metadata

    async def leave(self, redirect_uri: str, return_to: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie that it keeps meanwhile.

        Raises:
            Problem: the provider does not answer. Retry.
        """
        client, _ = await self._metadata()
        made = await client.create_authorization_url(redirect_uri)
        login = Login(made["state"], made["nonce"], made["code_verifier"], redirect_uri, return_to, int(time.time()))
        return made["url"], self._signed(login)

    async def come_back(self, cookie: str, answer: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
        """Where to go, and the claims of who logged in.

        Raises:
            Refused: anything is not as it must be. The browser may begin anew.
            Problem: the provider does not answer. Retry.
        """
        login = self._kept(cookie)
        if login is None or not hmac.compare_digest(login.state.encode(), answer.get("state", "").encode()):
            raise Refused("login-expired", "the login was begun elsewhere, too long ago, or is over already")
        client, metadata = await self._metadata()
        supported = metadata.get("authorization_response_iss_parameter_supported") is True
        if (answer.get("iss") or supported) and answer.get("iss") != metadata["issuer"]:
            raise Refused("login-refused", "the answer comes from another provider")
        if answer.get("error"):
            raise Refused("login-refused", f"the provider says: {answer['error']}")
        if not answer.get("code"):
            raise Refused("login-refused", "the provider sent no code")
        try:
            await client.fetch_jwk_set(force=True)
            token = await client.fetch_access_token(
                code=answer["code"], state=login.state, redirect_uri=login.redirect_uri, code_verifier=login.verifier
            )
            claims = await client.parse_id_token(token, login.nonce, self._claims(metadata), leeway=LEEWAY_SECONDS)
        except httpx2.HTTPError as error:
            log.warning("oidc: the provider does not answer", error=str(error) or type(error).__name__)
            raise Problem("provider-unavailable") from error
        except (OAuthError, JoseError, ValueError, KeyError) as error:
            raise Refused("login-refused", f"{type(error).__name__}: {error}") from error
        if claims is None:
            raise Refused("login-refused", "the provider sent no id_token: does IOT_OIDC_SCOPE have openid?")
        if abs(time.time() - int(claims["iat"])) > LOGIN_SECONDS:
            raise Refused("login-refused", "the id_token is old")
        return login.return_to, cast("Mapping[str, Any]", claims)

    def _claims(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "value": metadata["issuer"]},
            "aud": {"essential": True, "value": self._settings.oidc_client_id},
            "sub": {"essential": True},
            "exp": {"essential": True},
            "iat": {"essential": True},
        }

    def name(self, claims: Mapping[str, Any]) -> str:
        """The user's name here, by IOT_OIDC_NAME_CLAIM.

        Raises:
            Refused: there is none, or an address that the provider has not verified.
        """
        claim = self._settings.oidc_name_claim
        value = claims.get(claim)
        if not isinstance(value, str) or not value:
            raise Refused("login-refused", f"the id_token has no {claim} (IOT_OIDC_NAME_CLAIM, IOT_OIDC_SCOPE)")
        if claim == "email" and claims.get("email_verified") is not True:
            raise Refused("login-refused", "the provider has not verified the e-mail address")
        return value.lower()

    async def user(self, state: "State", claims: Mapping[str, Any]) -> int:
        """The user that this account logs in as: the one that it logged in as before; at the first time the one of its name, who must have
        been made without a password.

        Raises:
            Refused: there is none.
        """
        subject = f"{claims['iss']} {claims['sub']}"
        async with state.console() as connection:
            row = await (await connection.execute(_FIND, {"subject": subject})).fetchone()
            if row is None:
                row = await (await connection.execute(_BIND, {"subject": subject, "name": self.name(claims)})).fetchone()
        if row is None:
            raise Refused("no-such-user", "`iot console user add NAME --no-password` makes the user that this account may log in as")
        return int(row[0])

    def _signed(self, login: Login) -> str:
        body = base64.urlsafe_b64encode(msgspec.json.encode(login))
        return (body + b"." + hmac.new(self._key, body, hashlib.sha256).hexdigest().encode()).decode()

    def _kept(self, cookie: str) -> Login | None:
        body, _, signature = cookie.encode("utf-8", "replace").rpartition(b".")
        if not hmac.compare_digest(hmac.new(self._key, body, hashlib.sha256).hexdigest().encode(), signature):
            return None
        login = msgspec.json.decode(base64.urlsafe_b64decode(body), type=Login)
        return login if time.time() - login.begun_at <= LOGIN_SECONDS else None


def _secret(path: Path | None) -> str | None:
    return path.read_text("utf-8").strip() if path is not None else None
