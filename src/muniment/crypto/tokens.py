"""Account tokens: a short-lived JWT (RFC 7519) signed with EdDSA (RFC 8037) by the account, for one node.

Claims: iss = account id text, aud = node id text, iat, exp.  The issuer is its own public key, so a node
needs no look-up to check the signature; whether it serves that account is its policy.
"""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from muniment.crypto.identity import Identity
from muniment.errors import ClockSkewed, InvalidRequest, TokenRejected
from muniment.ids import AccountId, NodeId, id_from_text, id_text
from muniment.spec.limits import TOKEN_LIFETIME_S_MAX, TOKEN_SKEW_S_MAX

_ALGORITHM = "EdDSA"
_TOKEN_CHARS_MAX = 1024


def issue_token(identity: Identity, node: NodeId, *, now_s: float, lifetime_s: int = 300) -> str:
    """A token by which `identity`'s account speaks to `node` for `lifetime_s` seconds."""
    claims = {
        "iss": id_text(identity.account),
        "aud": id_text(node),
        "iat": int(now_s),
        "exp": int(now_s) + lifetime_s,
    }
    return jwt.encode(claims, identity.private_key, algorithm=_ALGORITHM)


def open_token(token: str, node: NodeId, *, now_s: float) -> tuple[AccountId, float]:
    """Verify a token made for `node`.

    Returns: the account and when the token ends, in seconds since the epoch.

    Raises:
        TokenRejected: malformed, other algorithm, wrong signature, made for another node, expired, or
            valid for longer than TOKEN_LIFETIME_S_MAX.
        ClockSkewed: its times differ from this node's clock by more than TOKEN_SKEW_S_MAX and more than
            age can explain.
    """
    if len(token) > _TOKEN_CHARS_MAX:
        raise TokenRejected(reason="too long")
    try:
        claimed = jwt.decode(token, options={"verify_signature": False})
        account = AccountId(id_from_text(str(claimed.get("iss"))))
        claims = jwt.decode(
            token,
            Ed25519PublicKey.from_public_bytes(account),
            algorithms=[_ALGORITHM],
            audience=id_text(node),
            # Times are judged below, by the clock that was passed in.
            options={"require": ["iss", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidAudienceError as error:
        raise TokenRejected(reason="it was made for another node") from error
    except (jwt.PyJWTError, InvalidRequest, ValueError, TypeError) as error:
        raise TokenRejected(reason="it is not a valid token") from error
    issued_s, expires_s = claims["iat"], claims["exp"]
    if type(issued_s) is not int or type(expires_s) is not int:
        raise TokenRejected(reason="its times are not whole seconds")
    if not 0 < expires_s - issued_s <= TOKEN_LIFETIME_S_MAX:
        raise TokenRejected(reason=f"it claims to be valid for {expires_s - issued_s} s")
    if issued_s - now_s > TOKEN_SKEW_S_MAX:
        raise ClockSkewed(skew_s=int(issued_s - now_s))
    if now_s - expires_s > TOKEN_SKEW_S_MAX:
        raise ClockSkewed(skew_s=int(now_s - issued_s))
    if now_s >= expires_s:
        raise TokenRejected(reason="it has expired")
    return account, float(expires_s)
