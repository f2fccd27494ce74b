"""The token service: service principals log in here, and the services ask whom they let in."""

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.cloud.faults import Faults, ServiceError
from tests.cloud.service import Answer, Request, Service

HOST = "login.microsoftonline.com"


@dataclass(frozen=True)
class Principal:
    """A service principal, made anew for each cloud."""

    tenant: str
    client: str
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)


class Login(Service):
    """Microsoft Entra ID as far as client credentials go.

    Attributes:
        lifetime: seconds that a token holds; shorten it to see a login expire.
    """

    def __init__(self, faults: Faults, principal: Principal) -> None:
        super().__init__("login", faults)
        self.principal = principal
        self.lifetime = 3600.0
        self._tokens: dict[str, tuple[str, float]] = {}
        self._identity = secrets.token_urlsafe(12)
        self.on("GET", r"/common/discovery/instance", self._instance)
        self.on(
            "GET",
            r"/(?P<tenant>[^/]+)/v2\.0/\.well-known/openid-configuration",
            self._configuration,
        )
        self.on("GET", r"/msi/token", self._managed_identity)
        self.on("POST", r"/(?P<tenant>[^/]+)/oauth2(/v2\.0)?/token", self._token)

    def expire(self) -> None:
        """Let all tokens that were given out expire now."""
        self._tokens = {token: (audience, 0.0) for token, (audience, _) in self._tokens.items()}

    def identity_variables(self) -> dict[str, str]:
        """Return what leads a cluster's node to its managed identity."""
        return {
            "MSI_ENDPOINT": f"http://127.0.0.1:{self.port}/msi/token",
            "MSI_SECRET": self._identity,
            "DEFAULT_IDENTITY_CLIENT_ID": self.principal.client,
        }

    def check(self, request: Request) -> None:
        """Let a request in that bears a valid token of this service.

        Raises:
            ServiceError: 401 in the words of Azure Resource Manager.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            message = "Authentication failed. The 'Authorization' header is missing."
            raise ServiceError(401, "AuthenticationFailed", message)
        known = self._tokens.get(token)
        if known is None:
            raise ServiceError(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if known[1] <= time.time():
            message = "The access token expiry is in the past; the token has expired."
            raise ServiceError(401, "ExpiredAuthenticationToken", message)

    def _instance(self, request: Request) -> dict:
        names = {"preferred_network": HOST, "preferred_cache": HOST, "aliases": [HOST]}
        where = f"https://{HOST}/{self.principal.tenant}/v2.0/.well-known/openid-configuration"
        return {"tenant_discovery_endpoint": where, "api-version": "1.1", "metadata": [names]}

    def _configuration(self, request: Request, tenant: str) -> Answer | dict:
        if tenant != self.principal.tenant:
            return _refused("AADSTS90002", f"Tenant '{tenant}' not found.", "invalid_tenant", 400)
        tenant = f"https://{HOST}/{self.principal.tenant}"
        return {
            "token_endpoint": f"{tenant}/oauth2/v2.0/token",
            "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{tenant}/oauth2/v2.0/devicecode",
            "issuer": f"{tenant}/v2.0",
        }

    def _token(self, request: Request, tenant: str) -> Answer | dict:
        form = dict(parse_qsl(request.body.decode()))
        if tenant != self.principal.tenant:
            return _refused("AADSTS90002", f"Tenant '{tenant}' not found.", "invalid_request", 400)
        if form.get("client_id") != self.principal.client:
            message = f"Application with identifier '{form.get('client_id')}' was not found."
            return _refused("AADSTS700016", message, "unauthorized_client", 400)
        if form.get("client_secret") != self.principal.secret:
            return _refused("AADSTS7000215", "Invalid client secret provided.", "invalid_client")
        audience = form.get("scope", form.get("resource", "")).removesuffix("/.default")
        return self._issue(audience)

    def _managed_identity(self, request: Request) -> dict:
        if request.headers.get("secret") != self._identity:
            raise ServiceError(401, "Unauthorized", "The managed identity's secret is wrong.")
        return self._issue(request.query["resource"])

    def _issue(self, audience: str) -> dict:
        ends = time.time() + self.lifetime
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.principal.tenant}/",
            "tid": self.principal.tenant,
            "appid": self.principal.client,
            "oid": self.principal.client,
            "nbf": int(time.time()) - 60,
            "iat": int(time.time()),
            "exp": int(ends),
            "ver": "1.0",
        }
        header = {"alg": "none", "typ": "JWT"}
        parts = [_encode(header), _encode(claims), secrets.token_urlsafe(16)]
        token = ".".join(parts)
        self._tokens[token] = (audience, ends)
        seconds = max(int(self.lifetime), 1)
        return {
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "expires_on": str(int(ends)),
            "resource": audience,
            "access_token": token,
        }


def _encode(part: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def _refused(code: str, message: str, error: str, status: int = 401) -> Answer:
    number = int(code.removeprefix("AADSTS"))
    description = f"{code}: {message} Trace ID: 0 Correlation ID: 0"
    value = {"error": error, "error_description": description, "error_codes": [number]}
    return Answer(value, status)
