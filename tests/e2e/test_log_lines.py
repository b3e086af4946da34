"""What a node writes to its log is JSON a line, and no secret stands in it, however it is used."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.e2e.muni_command import User
from tests.e2e.node_processes import ACCOUNT, Plain

from muniment.crypto.identity import Identity
from muniment.ids import id_text
from muniment.spec.address import parse_node
from muniment.testing.sample_blob import sample_blob


def test_a_node_that_tells_everything_tells_no_secret(tmp_path: Path) -> None:
    user = User(tmp_path)
    assert user.muni("node", "init", "n", "--capacity", "10MB").code == 0
    blob, stranger = sample_blob(1), Identity.from_seed(b"z" * 32)
    secrets = [(tmp_path / "n" / "key").read_text().strip(), ACCOUNT.seed.hex(), id_text(ACCOUNT.seed)]
    words = ("--log-level", "debug", "--log-format", "json", "node", "run", "n")
    with user.starting(*words) as node:
        assert node.stdout is not None
        address = parse_node(node.stdout.readline().decode().split()[1])
        with Plain(address) as client:
            assert client.reserve(blob, 0) == ["accepted"]
            assert client.put(blob, 0) == ["held"]
            assert client.get(blob, 0)[0] == 200
            secrets.append(client.headers()["Authorization"].split()[1])
            forged = secrets[-1][:-6] + "AAAAAA"
            assert client.ask("GET", "/v1/usage", Authorization=f"Bearer {forged}")[0] == 401
            late = client.headers(at_s=-4000)["Authorization"]
            assert client.ask("GET", "/v1/usage", Authorization=late)[0] == 401
            secrets += [forged, late.split()[1]]
            assert client.ask("POST", "/v1/reserve", b"{not json")[0] == 400
            (file,) = (path for path in (tmp_path / "n" / "store" / "shares").rglob("*.0") if path.is_file())
            file.write_bytes(file.read_bytes()[:-1] + b"!")
            assert client.get(blob, 0)[0] == 422, "it is noticed, and told"
        with Plain(address, stranger) as other:
            secrets.append(other.headers()["Authorization"].split()[1])
            assert other.ask("GET", "/v1/usage")[0] == 200
        node.send_signal(signal.SIGTERM)
        _, err = node.communicate(timeout=20)
    assert node.returncode == 0
    lines = [json.loads(line) for line in err.decode().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    messages = [line["message"] for line in lines]
    assert any(message.endswith("serves") for message in messages)
    corrupt = [
        line for line in lines if line.get("fields", {}).get("error", {}).get("code") == "share-corrupt"
    ]
    assert corrupt, messages
    for secret in secrets:
        assert secret not in err.decode()
        assert secret.rsplit(".", 1)[-1] not in err.decode(), "not the signature alone either"
    assert "Bearer" not in err.decode()
