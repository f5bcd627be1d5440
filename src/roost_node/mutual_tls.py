"""HTCondor's settings for calling others by mutual TLS alone: in a node and on a user's machine."""

from __future__ import annotations

from pathlib import Path


def configuration(ca: Path, cert: Path, key: Path) -> str:
    """Every connection is authenticated by TLS, encrypted and checked; `cert` says who calls."""
    return f"""\
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_ENCRYPTION = REQUIRED
SEC_DEFAULT_INTEGRITY = REQUIRED
SEC_CLIENT_AUTHENTICATION = REQUIRED
SEC_CLIENT_ENCRYPTION = REQUIRED
SEC_CLIENT_INTEGRITY = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = SSL
SEC_CLIENT_AUTHENTICATION_METHODS = SSL
SEC_DEFAULT_CRYPTO_METHODS = AES
SEC_CLIENT_CRYPTO_METHODS = AES
AUTH_SSL_CLIENT_CAFILE = {ca}
AUTH_SSL_CLIENT_CERTFILE = {cert}
AUTH_SSL_CLIENT_KEYFILE = {key}
# Only the pool's own CA: a public one vouches for nobody here.
AUTH_SSL_CLIENT_USE_DEFAULT_CAS = False
BOOTSTRAP_SSL_SERVER_TRUST = False
# No tokens.
SEC_ENABLE_TOKEN_FETCH = False
SEC_TOKEN_DIRECTORY =
"""
