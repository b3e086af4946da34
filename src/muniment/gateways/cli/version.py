"""`muni version`."""

from __future__ import annotations

import platform
import ssl
from importlib import metadata

import click

from muniment.gateways.cli.context import Context, pass_context

_LIBRARIES = ("blake3", "cbor2", "cryptography", "granian", "msgspec", "obstore", "pyeclib", "zstandard")


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Also what it runs on, and what computes.")
@pass_context
def version(context: Context, verbose: bool) -> None:
    """Print the version."""
    own = metadata.version("muniment")
    document: dict[str, object] = {"muniment": own}
    if verbose:
        from muniment.erasure.kernel import kernel_name

        document |= {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "erasure": kernel_name(),
            "tls": ssl.OPENSSL_VERSION,
            "libraries": {name: _installed(name) for name in _LIBRARIES},
        }
    lines = [f"muniment {own}"]
    for name, value in document.items():
        if isinstance(value, dict):
            lines += [f"  {key} {found}" for key, found in value.items()]
        elif name != "muniment":
            lines.append(f"{name}: {value}")
    context.emit(document, "\n".join(lines))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
