"""A user's seed in a file, locked by a passphrase (docs/spec/key_file.md).

Argon2id makes the key (RFC 9106), AES-256-GCM seals the seed.  Salt and nonce are new for each file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from muniment.errors import InvalidRequest, MalformedRecord, PassphraseWrong
from muniment.spec import key_file as spec
from muniment.spec.key_file import KeyFileCost, LockedKey, OpenKey

PASSPHRASE_CHARS_MAX: Final = 1024
_KEY_BYTES: Final = 32
_DEFAULT_COST: Final = KeyFileCost()


def lock_seed(
    seed: bytes, passphrase: str, *, entropy: Callable[[int], bytes], cost: KeyFileCost = _DEFAULT_COST
) -> bytes:
    """The key file of a seed; the caller writes it with mode 0600.

    Args:
        seed: 32 secret bytes.
        passphrase: empty for a file that is not locked, and says so.
        entropy: gives unpredictable bytes, for salt and nonce.
        cost: memory and time, for this and every later opening.
    Raises: MalformedRecord: not a seed; InvalidRequest: a passphrase that is too long or no Unicode text.
    Cost: `cost`; by default 64 MiB and some tenths of a second, with the GIL released.
    """
    if len(seed) != spec.SEED_BYTES:
        raise MalformedRecord(format="key file", reason=f"seed of {len(seed)} bytes")
    if not passphrase:
        return spec.encode_key_file(OpenKey(seed))
    salt, nonce = entropy(spec.SALT_BYTES), entropy(spec.NONCE_BYTES)
    key = _derive(passphrase, salt, cost)
    sealed = AESGCM(key).encrypt(nonce, seed, spec.locked_header(cost, salt, nonce))
    return spec.encode_key_file(LockedKey(cost, salt, nonce, sealed))


def is_locked(data: bytes) -> bool:
    """Whether a key file needs a passphrase.  Raises: MalformedRecord, UnknownVersion."""
    return isinstance(spec.decode_key_file(data), LockedKey)


def unlock_seed(data: bytes, passphrase: str, *, file: str = "the key file") -> bytes:
    """The seed in a key file.

    Args:
        data: the file, from anybody: what it may cost to open is limited.
        passphrase: not looked at if the file is not locked.
        file: what to call it in an error.

    Raises:
        MalformedRecord: not a key file, damaged, or asking for more than a reader gives.
        UnknownVersion: a newer format.
        PassphraseWrong: undamaged, and it does not open.
        InvalidRequest: a passphrase that is too long or no Unicode text.
    """
    match spec.decode_key_file(data):
        case OpenKey(seed):
            return seed
        case LockedKey(cost, salt, nonce, sealed):
            # Nothing is locked by the empty passphrase.
            if not passphrase:
                raise PassphraseWrong(file=file)
            key = _derive(passphrase, salt, cost)
            try:
                return AESGCM(key).decrypt(nonce, sealed, spec.locked_header(cost, salt, nonce))
            except InvalidTag as error:
                raise PassphraseWrong(file=file) from error


def _derive(passphrase: str, salt: bytes, cost: KeyFileCost) -> bytes:
    """The key of a passphrase; the same text counts the same however a keyboard composes it (NFC)."""
    if len(passphrase) > PASSPHRASE_CHARS_MAX:
        raise InvalidRequest(reason=f"a passphrase has at most {PASSPHRASE_CHARS_MAX} characters")
    try:
        typed = unicodedata.normalize("NFC", passphrase).encode()
    except UnicodeEncodeError:
        # `from None`: the cause carries the passphrase.
        raise InvalidRequest(reason="the passphrase is not Unicode text") from None
    kdf = Argon2id(
        salt=salt, length=_KEY_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return kdf.derive(typed)
