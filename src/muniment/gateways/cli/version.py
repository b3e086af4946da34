"""`muni version`."""

from __future__ import annotations

import platform
import ssl
from importlib import metadata
from typing import Any, Final

import click

from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.show import table

_LIBRARIES: Final = (
    "blake3", "cbor2", "click", "cryptography", "granian", "msgspec", "numpy", "obstore", "pyeclib", "pyjwt",
    "uvloop", "zstandard",
)  # fmt: skip


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Also what it runs on, and what computes.")
@json_option
@pass_context
def version(context: Context, verbose: bool) -> None:
    """What is installed here."""
    own = metadata.version("muniment")
    document: dict[str, Any] = {"muniment": own}
    if verbose:
        from muniment.erasure.kernel import kernel_name

        document |= {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "erasure": kernel_name(),
            "tls": ssl.OPENSSL_VERSION,
            "libraries": {name: _installed(name) for name in _LIBRARIES},
        }
    libraries = document.get("libraries", {})
    facts = {name: value for name, value in document.items() if name != "libraries"} | libraries
    context.emit(document, table(list(facts.items())))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
