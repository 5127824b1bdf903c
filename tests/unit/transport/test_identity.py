"""Every way in which a certificate fails to prove what it must, and the sentence that says so."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fed.config import Address, TLSConfig
from fed.errors import ConfigError
from fed.transport.certificates import Authority, Credentials
from fed.transport.contract import AddressInUse, Notice, NoticeKind, PeerUnreachable, PeerUntrusted
from fed.transport.credentials import check_own_credentials, exposed_key, load_credentials, party_of_certificate
from fed.transport.grpc import GrpcLink, GrpcListener
from tests.support.worlds import LIMIT_S, PARTIES, Recorder, free_address, hello, run

LONG_AGO = datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)
CLOSED = r"party 'bob' at \S+ closed the connection without saying why, and this party's certificate cannot be accepted"
FAR_AHEAD = datetime.datetime(2200, 1, 2, tzinfo=datetime.timezone.utc)


def written(directory: Path, ca: bytes, credentials: Credentials) -> TLSConfig:
    directory.mkdir(parents=True, exist_ok=True)
    tls = TLSConfig(ca=directory / "ca.pem", cert=directory / "cert.pem", key=directory / "key.pem")
    tls.ca.write_bytes(ca)
    tls.cert.write_bytes(credentials.cert)
    tls.key.write_bytes(credentials.key)
    return tls


class Issuer:
    """An authority without manners: it certifies whatever it is asked to, and its issue may issue in turn.

    Args:
        issuer: Who issues it. None: itself.
        names: Of what it certifies; one with names is no authority.
        usages: Its extended key usages.
        common_name: Whether it has one.
        key: Its own. None: on the curve P-256.
        signs_with: The hash of its signatures.
        valid_from: When its validity of a day begins, in days from now.
        may_issue: Whether its certificate says that it is an authority. None: if it has no names.
        extra: More extensions; all are critical.
    """

    def __init__(
        self,
        issuer: Issuer | None = None,
        names: tuple[x509.GeneralName, ...] = (),
        *,
        usages: tuple[x509.ObjectIdentifier, ...] = (),
        common_name: bool = True,
        key: Any = None,
        signs_with: hashes.SHA256 | hashes.SHA3_256 | None = hashes.SHA256(),  # noqa: B008 - it has no state
        valid_from: float = -0.5,
        may_issue: bool | None = None,
        extra: tuple[x509.ExtensionType, ...] = (),
    ) -> None:
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._signs_with = signs_with
        attribute = x509.NameAttribute(
            NameOID.COMMON_NAME if common_name else NameOID.ORGANIZATION_NAME, f"issue {x509.random_serial_number()}"
        )
        self._subject = x509.Name([attribute])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(issuer._subject if issuer is not None else self._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=valid_from))
            .not_valid_after(now + datetime.timedelta(days=valid_from + 1))
            .add_extension(
                x509.BasicConstraints(ca=not names if may_issue is None else may_issue, path_length=None), critical=True
            )
        )
        for extension in extra:
            builder = builder.add_extension(extension, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        signer = issuer or self
        self.pem = builder.sign(signer._key, signer._signs_with).public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: x509.GeneralName,
        usages: tuple[x509.ObjectIdentifier, ...] = (),
        common_name: bool = True,
        key: Any = None,
        extra: tuple[x509.ExtensionType, ...] = (),
    ) -> Credentials:
        issued = Issuer(self, names, usages=usages, common_name=common_name, key=key, extra=extra)
        key = issued._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Credentials(issued.pem, key)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


@pytest.fixture
def good(tmp_path: Path, authority: Authority) -> TLSConfig:
    return written(tmp_path / "good", authority.pem, authority.issue("alice"))


# This party's own credentials ------------------------------------------------------------------------------------


def complaint(party: str, tls: TLSConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        check_own_credentials(party, tls)
    return str(caught.value)


def test_good_credentials_are_good(good: TLSConfig) -> None:
    check_own_credentials("alice", good)


@pytest.mark.parametrize(
    ("mode", "exposed"), [(0o600, False), (0o640, False), (0o604, True), (0o666, True), (0o602, True)]
)
def test_a_key_that_every_user_may_open_is_named(mode: int, exposed: bool, tmp_path: Path) -> None:
    root = Authority()
    tls = written(tmp_path, root.pem, root.issue("alice"))
    tls.key.chmod(mode)
    assert exposed_key(tls) == (
        f"tls.key: {tls.key} is open to every user of this machine (mode {mode:04o}): chmod o-rwx it, and renew the key"
        if exposed
        else ""
    )


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_a_missing_file_is_named_with_its_option(good: TLSConfig, option: str) -> None:
    path: Path = getattr(good, option)
    path.unlink()
    assert complaint("alice", good) == f"tls.{option}: cannot read {path}: No such file or directory"


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_a_file_that_is_no_pem_is_named_with_its_option(good: TLSConfig, option: str) -> None:
    path: Path = getattr(good, option)
    path.write_bytes(b"\x30\x82\x01")
    assert complaint("alice", good).startswith(f"tls.{option}: {path} is not a PEM file")


@pytest.mark.parametrize(
    ("option", "swapped", "reason"),
    [
        ("ca", "key", "holds no certificate, but PRIVATE KEY: give one as CERTIFICATE"),
        ("cert", "key", "holds no certificate, but PRIVATE KEY: give one as CERTIFICATE"),
        ("key", "cert", "holds no private key that TLS can use, but CERTIFICATE: give one as PRIVATE KEY, "),
    ],
)
def test_a_file_of_another_kind_is_noticed(good: TLSConfig, option: str, swapped: str, reason: str) -> None:
    tls = dataclasses.replace(good, **{option: getattr(good, swapped)})
    assert complaint("alice", tls).startswith(f"tls.{option}: {getattr(tls, option)} {reason}")


def test_an_encrypted_key_is_noticed(good: TLSConfig) -> None:
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    good.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert complaint("alice", good).startswith(f"tls.key: {good.key} is encrypted")


def test_the_key_of_another_certificate_is_noticed(good: TLSConfig, authority: Authority) -> None:
    good.key.write_bytes(authority.issue("alice").key)
    assert complaint("alice", good).startswith(f"tls.key: {good.key} is not the key of {good.cert}")


def test_an_expired_certificate_is_noticed(tmp_path: Path, authority: Authority) -> None:
    tls = written(tmp_path, authority.pem, authority.issue("alice", valid_from=LONG_AGO))
    assert complaint("alice", tls).startswith(f"tls.cert: {tls.cert} expired on 2020-02-01 00:00 UTC")


def test_a_certificate_of_the_future_is_noticed(tmp_path: Path, authority: Authority) -> None:
    tls = written(tmp_path, authority.pem, authority.issue("alice", valid_from=FAR_AHEAD))
    assert complaint("alice", tls).startswith(f"tls.cert: {tls.cert} is not valid before 2200-01-02 00:00 UTC")


def test_the_certificate_of_another_party_is_noticed(good: TLSConfig) -> None:
    assert complaint("bob", good).startswith(f"tls.cert: {good.cert} belongs to party 'alice', and this is party 'bob'")


def test_a_certificate_of_nobody_is_noticed(tmp_path: Path, authority: Authority) -> None:
    tls = written(tmp_path, authority.pem, authority.issue(None))
    assert complaint("alice", tls) == (
        f"tls.cert: {tls.cert} names no party (it has no SAN URI fed://<party>): have it issued with the SAN URI "
        "fed://alice"
    )


def test_a_certificate_of_another_authority_is_noticed(tmp_path: Path, authority: Authority) -> None:
    tls = written(tmp_path, authority.pem, Authority().issue("alice"))
    assert complaint("alice", tls).startswith(f"tls.cert: {tls.cert} was not issued by the authority in {tls.ca}")


def test_a_chain_of_authorities_is_followed(tmp_path: Path) -> None:
    root = Issuer()
    middle = Issuer(root)
    issued = middle.issue(uri("fed://alice"))
    tls = written(tmp_path, root.pem, Credentials(issued.cert + middle.pem, issued.key))
    check_own_credentials("alice", tls)
    tls.cert.write_bytes(issued.cert)
    assert "was not issued by the authority" in complaint("alice", tls)


def test_names_that_a_certificate_may_not_have() -> None:
    issuer = Issuer()
    for names, reason in (
        ([uri("fed://alice"), uri("fed://bob")], "names several parties: 'alice', 'bob'"),
        ([uri("fed://alice"), uri("fed://alice")], "names several parties"),
        ([uri(f"fed://p{number}") for number in range(999)], r"names several parties: 'p0', 'p1', .{,200} \.\.\.$"),
        ([uri(f"fed://{'p' * 9999}")], r"names 'p{199} \.\.\., which cannot"),
        ([uri("fed://alice/admin")], "cannot be a party's name"),
        ([uri("fed://")], "cannot be a party's name"),
        ([uri("https://alice"), x509.DNSName("alice")], "names no party"),
    ):
        with pytest.raises(ValueError, match=reason):
            party_of_certificate(issuer.issue(*names).cert)
    with pytest.raises(ValueError, match="names no party"):
        party_of_certificate(issuer.pem)
    with pytest.raises(ValueError, match="cannot be read"):
        party_of_certificate(b"nonsense")


def test_a_certificate_for_one_end_of_a_connection_only_is_noticed(tmp_path: Path) -> None:
    root = Issuer()
    both = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
    for usages in ((), both):
        check_own_credentials("alice", written(tmp_path, root.pem, root.issue(uri("fed://alice"), usages=usages)))
    for usage in (*both, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE):
        tls = written(tmp_path, root.pem, root.issue(uri("fed://alice"), usages=(usage,)))
        assert complaint("alice", tls).startswith(f"tls.cert: {tls.cert} is not for both ends of a connection")


def test_a_certificate_without_any_host_name_is_noticed(tmp_path: Path) -> None:
    root = Issuer()
    tls = written(tmp_path, root.pem, root.issue(uri("fed://alice"), common_name=False))
    assert complaint("alice", tls).startswith(f"tls.cert: {tls.cert} has no DNS name, no IP address and no common name")


TAKEN = "on the curve P-256 or P-384, or one for RSA of 2048 bits or more"
KEYS: dict[str, tuple[Callable[[], Any], str]] = {
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, "of the kind Ed25519"),
    "Ed448": (ed448.Ed448PrivateKey.generate, "of the kind Ed448"),
    "P-224": (lambda: ec.generate_private_key(ec.SECP224R1()), "on the curve secp224r1"),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), "on the curve secp521r1"),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), "on the curve secp256k1"),
    "RSA 1024": (lambda: rsa.generate_private_key(65537, 1024), "for RSA of 1024 bits"),
}
"""Keys that the TLS of gRPC does not prove anything by, and what is said of them."""

GOOD_KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA 4096": lambda: rsa.generate_private_key(65537, 4096),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_grpc_does_not_take_is_noticed(tmp_path: Path, kind: str) -> None:
    make, what = KEYS[kind]
    root = Issuer()
    tls = written(tmp_path, root.pem, root.issue(uri("fed://alice"), key=make()))
    assert complaint("alice", tls) == (
        f"tls.cert: {tls.cert} has a key {what}, which the TLS of gRPC does not take: make one {TAKEN}, and have its "
        "certificate issued"
    )


@pytest.mark.parametrize("kind", ["Ed448", "secp256k1", "RSA 1024"])
def test_an_authority_whose_key_grpc_does_not_take_is_noticed(tmp_path: Path, kind: str) -> None:
    make, what = KEYS[kind]
    root = Issuer(key=make(), signs_with=None if kind == "Ed448" else hashes.SHA256())
    tls = written(tmp_path, root.pem, root.issue(uri("fed://alice")))
    assert re.fullmatch(
        rf"tls.ca: the authority 'CN=issue \d+' in {tls.ca} has a key {what}, which the TLS of gRPC does not take: "
        rf"have the certificates issued by one with a key {TAKEN}",
        complaint("alice", tls),
    )


@pytest.mark.parametrize("of", ["the party", "the authority"])
@pytest.mark.parametrize("kind", [*GOOD_KEYS, "P-224", "P-521", "Ed25519"])
def test_what_the_check_lets_pass_connects_and_what_it_refuses_does_not(tmp_path: Path, of: str, kind: str) -> None:
    """The table holds what this release of gRPC does, by real handshakes in both directions."""
    key = (GOOD_KEYS.get(kind) or KEYS[kind][0])()
    root = (
        Issuer(key=key, signs_with=None if kind == "Ed25519" else hashes.SHA256())
        if of == "the authority"
        else Issuer()
    )
    issued = {
        party: root.issue(uri(f"fed://{party}"), x509.DNSName("bob"), key=key if of == "the party" else None)
        for party in ("alice", "bob")
    }
    alice, bob = (written(tmp_path / party, root.pem, issued[party]) for party in ("alice", "bob"))

    async def scenario() -> str:
        server = credentials_of_grpc(bob, server=True)
        listener = grpc.aio.server()
        port = listener.add_secure_port("127.0.0.1:0", server)
        await listener.start()
        try:
            options = [("grpc.ssl_target_name_override", "bob")]
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials_of_grpc(alice), options) as channel:
                await channel.unary_unary("/nothing/there")(b"", timeout=LIMIT_S)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        finally:
            await listener.stop(None)
        return ""

    outcomes: list[str] = []

    async def noted() -> None:
        try:
            outcomes.append(await scenario())
        except RuntimeError as error:
            outcomes.append(str(error))

    run(noted())
    accepted = outcomes == ["UNIMPLEMENTED"]
    try:
        check_own_credentials("alice", alice)
    except ConfigError:
        assert not accepted
    else:
        assert accepted, outcomes


def credentials_of_grpc(tls: TLSConfig, *, server: bool = False) -> Any:
    own = load_credentials(tls)
    if server:
        return grpc.ssl_server_credentials([(own.key, own.cert)], own.ca, require_client_auth=True)
    return grpc.ssl_channel_credentials(own.ca, own.key, own.cert)


def test_a_key_that_may_not_sign_is_noticed(tmp_path: Path) -> None:
    root = Issuer()
    for sign in (True, False):
        usage = x509.KeyUsage(sign, False, not sign, False, False, False, False, False, False)
        tls = written(tmp_path, root.pem, root.issue(uri("fed://alice"), extra=(usage,)))
        if sign:
            check_own_credentials("alice", tls)
        else:
            assert complaint("alice", tls).endswith("have it issued with the key usage digitalSignature")


@pytest.mark.parametrize(
    ("valid_from", "reason"), [(-3, r"expired on .{20}: have it renewed"), (2, "is not valid before .{20}: set this")]
)
def test_an_authority_that_is_not_valid_is_named_and_not_the_certificate(
    tmp_path: Path, valid_from: float, reason: str
) -> None:
    old = Issuer(valid_from=valid_from)
    tls = written(tmp_path / "root", old.pem, old.issue(uri("fed://alice")))
    assert re.match(rf"tls.ca: the authority 'CN=issue \d+' in {tls.ca} {reason}", complaint("alice", tls))
    root = Issuer()
    middle = Issuer(root, valid_from=valid_from)
    issued = middle.issue(uri("fed://alice"))
    tls = written(tmp_path / "middle", root.pem, Credentials(issued.cert + middle.pem, issued.key))
    assert re.match(rf"tls.cert: the authority 'CN=issue \d+' in {tls.cert} {reason}", complaint("alice", tls))


def test_a_chain_in_the_wrong_order_is_noticed(tmp_path: Path) -> None:
    root = Issuer()
    middle = Issuer(root)
    issued = middle.issue(uri("fed://alice"))
    tls = written(tmp_path, root.pem, Credentials(middle.pem + issued.cert, issued.key))
    assert complaint("alice", tls) == (
        f"tls.cert: {tls.cert} does not begin with the certificate of {tls.key}: put that first, and after it those "
        "that it was issued by"
    )


def test_a_signature_that_tls_does_not_take_is_noticed(tmp_path: Path) -> None:
    root = Issuer(key=rsa.generate_private_key(65537, 2048), signs_with=hashes.SHA3_256())
    tls = written(tmp_path, root.pem, root.issue(uri("fed://alice")))
    assert complaint("alice", tls).endswith(
        f"in {tls.cert} is signed with sha3-256, which TLS does not take: have it issued with SHA-256"
    )


@pytest.mark.parametrize("what", ["an authority that is none", "an extension that nobody knows"])
def test_whatever_else_keeps_tls_from_taking_it_is_noticed(tmp_path: Path, what: str) -> None:
    root = Issuer(may_issue=what != "an authority that is none")
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    extra = (unknown,) if what == "an extension that nobody knows" else ()
    tls = written(tmp_path, root.pem, root.issue(uri("fed://alice"), extra=extra))
    found = "unhandled critical extension" if extra else "invalid CA certificate"
    assert complaint("alice", tls) == (
        f"tls.cert: two ends that both have {tls.cert} and {tls.ca} (tls.ca) cannot connect ({found}): have what that "
        "names issued anew"
    )


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_what_an_editor_puts_before_a_pem_file_is_noticed(good: TLSConfig, option: str) -> None:
    path: Path = getattr(good, option)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert complaint("alice", good) == f"tls.{option}: {path} begins with a byte order mark: save it as plain ASCII"


def test_forms_that_grpc_reads_are_good(good: TLSConfig) -> None:
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    for form in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8):
        good.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        check_own_credentials("alice", good)
    good.cert.write_bytes(good.cert.read_bytes().replace(b" CERTIFICATE", b" X509 CERTIFICATE"))
    check_own_credentials("alice", good)


def test_a_key_for_another_program_is_noticed(good: TLSConfig) -> None:
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    form = serialization.PrivateFormat.OpenSSH
    good.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    assert complaint("alice", good) == (
        f"tls.key: {good.key} holds no private key that TLS can use, but OPENSSH PRIVATE KEY: give one as PRIVATE KEY, "
        "which `openssl pkcs8 -topk8 -nocrypt` writes"
    )


def test_a_listener_checks_its_own_credentials(good: TLSConfig) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="belongs to party 'alice', and this is party 'bob'"):
            await GrpcListener("bob", free_address(), good).start(Recorder())

    run(scenario())


# Each other's ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(tls: TLSConfig | None) -> AsyncIterator[Address]:
    listener = GrpcListener("bob", Address("127.0.0.1", 1), tls, parties=PARTIES, any_port=True)
    await listener.start(Recorder())
    try:
        yield listener.address
    finally:
        await listener.close()


async def refusal_of(address: Address, tls: TLSConfig | None, peer: str = "bob") -> str:
    link = GrpcLink("alice", peer, address, tls)
    try:
        with pytest.raises(PeerUntrusted) as caught:
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
    finally:
        await link.close()
    return str(caught.value)


@pytest.fixture
def unchecked_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a listener start with bad credentials, like those of one that has been running for too long."""
    monkeypatch.setattr("fed.transport.grpc.listener.check_own_credentials", lambda *_: None)


@pytest.mark.usefixtures("unchecked_start")
@pytest.mark.parametrize(
    ("issue", "sentence"),
    [
        (
            lambda authority: authority.issue("bob", valid_from=LONG_AGO),
            r"party 'bob' at \S+: its certificate, or one that it was issued by, has expired: that party must have it "
            r"renewed",
        ),
        (
            lambda authority: authority.issue("bob", valid_from=FAR_AHEAD),
            r"party 'bob' at \S+: its certificate, or one that it was issued by, is not valid yet: one of the two "
            r"machines' clocks is wrong, or wait",
        ),
        (
            lambda authority: authority.issue("carol"),
            r"party 'bob' at \S+: the certificate there belongs to party 'carol', not to 'bob': correct the address of "
            r"'bob', or its certificate",
        ),
        (
            lambda authority: authority.issue(None),
            r"party 'bob' at \S+: its certificate names no party \(it has no SAN URI fed://<party>\): have it issued "
            r"with the SAN URI fed://bob",
        ),
        (
            lambda authority: Authority("elsewhere").issue("bob"),
            r"party 'bob' at \S+: its certificate does not lead to the authority in \S+/ca.pem \(tls.ca\): all parties "
            r"of a job need certificates of one authority, each followed by those in between \(.*\)",
        ),
    ],
    ids=["expired", "future", "other-party", "no-party", "other-authority"],
)
def test_the_servers_certificate_is_refused(
    tmp_path: Path, authority: Authority, credentials: Mapping[str, TLSConfig], issue: object, sentence: str
) -> None:
    async def scenario() -> None:
        assert callable(issue)
        async with listening(written(tmp_path, authority.pem, issue(authority))) as address:
            refusal = await refusal_of(address, credentials["alice"])
        assert re.fullmatch(sentence, refusal), refusal

    run(scenario())


@pytest.mark.parametrize(
    ("issue", "sentence"),
    [
        (
            lambda authority: authority.issue("alice", valid_from=LONG_AGO),
            rf"{CLOSED}: tls.cert: \S+ expired on 2020-02-01 .*",
        ),
        (
            lambda authority: authority.issue("alice", valid_from=FAR_AHEAD),
            rf"{CLOSED}: tls.cert: \S+ is not valid before 2200-01-02 .*",
        ),
        (
            lambda authority: Authority("elsewhere").issue("alice"),
            rf"{CLOSED}: tls.cert: \S+ was not issued by the authority .*",
        ),
        (
            lambda authority: authority.issue("carol"),
            r"party 'bob' at \S+: the certificate belongs to party 'carol', but the greeting comes from 'alice': give "
            r"each party its own certificate",
        ),
        (
            lambda authority: authority.issue(None),
            r"party 'bob' at \S+: the certificate names no party \(it has no SAN URI fed://<party>\): have it issued "
            r"with the SAN URI fed://<party>",
        ),
    ],
    ids=["expired", "future", "other-authority", "other-party", "no-party"],
)
def test_the_clients_certificate_is_refused(
    tmp_path: Path, authority: Authority, credentials: Mapping[str, TLSConfig], issue: object, sentence: str
) -> None:
    async def scenario() -> None:
        assert callable(issue)
        tls = written(tmp_path, authority.pem, issue(authority))
        async with listening(credentials["bob"]) as address:
            refusal = await refusal_of(address, tls)
        assert re.fullmatch(sentence, refusal), refusal

    run(scenario())


@pytest.mark.usefixtures("unchecked_start")
def test_a_server_whose_certificate_is_for_clients_only_or_has_no_host(tmp_path: Path) -> None:
    root = Issuer()
    alice = written(tmp_path / "alice", root.pem, root.issue(uri("fed://alice")))

    async def scenario() -> None:
        for issued, reason in (
            (root.issue(uri("fed://bob"), usages=(ExtendedKeyUsageOID.CLIENT_AUTH,)), "cannot be accepted .*purpose"),
            (root.issue(uri("fed://bob"), common_name=False), "has no DNS name, no IP address and no common name"),
        ):
            async with listening(written(tmp_path / "bob", root.pem, issued)) as address:
                refusal = await refusal_of(address, alice)
            assert re.fullmatch(rf"party 'bob' at \S+: its certificate {reason}.*", refusal), refusal

    run(scenario())


def test_their_authority_is_not_ours(tmp_path: Path, credentials: Mapping[str, TLSConfig]) -> None:
    """The client finds nothing wrong with its own certificate, nor with the server's: it trusts both authorities."""
    other = Authority("elsewhere")
    ours = credentials["alice"].ca.read_bytes()
    tls = written(tmp_path, ours + other.pem, other.issue("alice"))

    async def scenario() -> None:
        check_own_credentials("alice", tls)
        async with listening(credentials["bob"]) as address:
            refusal = await refusal_of(address, tls)
        assert re.fullmatch(
            r"party 'bob' at \S+ closed the connection without saying why when it had been shown this party's "
            r"certificate \S+, in which this party finds nothing wrong: see whether that party's tls.ca holds the "
            r"authority that issued it, and whether its clock is right",
            refusal,
        ), refusal

    run(scenario())


def test_tls_on_one_side_only(credentials: Mapping[str, TLSConfig]) -> None:
    async def scenario() -> None:
        async with listening(None) as address:
            assert await refusal_of(address, credentials["alice"]) == (
                f"party 'bob' at {address} does not speak TLS at that port: give that party the options tls.*, or "
                "correct its address"
            )
        async with listening(credentials["bob"]) as address:
            assert await refusal_of(address, None) == (
                f"party 'bob' at {address} expects TLS, and this party has none: give it the options tls.*"
            )

    run(scenario())


def test_something_else_at_the_address(credentials: Mapping[str, TLSConfig]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            assert "does not speak TLS at that port" in await refusal_of(address, credentials["alice"])
            assert "is no party of a job (no HTTP/2)" in await refusal_of(address, None)
        finally:
            server.close()

    run(scenario())


@pytest.mark.parametrize("secure", [False, True])
def test_a_peer_that_is_not_there_is_unreachable(credentials: Mapping[str, TLSConfig], secure: bool) -> None:
    tls = credentials["alice"] if secure else None

    async def scenario() -> None:
        for address, reason in (
            (free_address(), "nobody listens there yet"),
            (Address("no-such-host.invalid", 9), "the name 'no-such-host.invalid' cannot be resolved"),
        ):
            link = GrpcLink("alice", "bob", address, tls)
            with pytest.raises(PeerUnreachable, match=f"party 'bob' at {address}: {reason}"):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
            await link.close()

    run(scenario())


@pytest.mark.parametrize("secure", [False, True])
def test_a_peer_that_never_answers_is_given_up(credentials: Mapping[str, TLSConfig], secure: bool) -> None:
    tls = credentials["alice"] if secure else None
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        link = GrpcLink("alice", "bob", address, tls)
        try:
            with pytest.raises(PeerUnreachable, match=rf"party 'bob' at {address} did not answer within 0.2 s"):
                await link.connect(hello("alice"), timeout_s=0.2)
            await asyncio.wait_for(ended.wait(), LIMIT_S)
        finally:
            await link.close()
            server.close()

    run(scenario())


@pytest.mark.parametrize("secure", [False, True])
def test_a_peer_that_hangs_up_is_unreachable(credentials: Mapping[str, TLSConfig], secure: bool) -> None:
    tls = credentials["alice"] if secure else None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        link = GrpcLink("alice", "bob", Address("127.0.0.1", server.sockets[0].getsockname()[1]), tls)
        try:
            with pytest.raises(PeerUnreachable, match="closed the connection"):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
        finally:
            await link.close()
            server.close()

    run(scenario())


@pytest.mark.parametrize(
    "host",
    [
        x509.DNSName("db.bank.example"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.DNSName("*.bank.example"),
    ],
    ids=["name", "ip", "wildcard"],
)
def test_a_server_is_known_by_its_party_and_not_by_its_host(tmp_path: Path, host: x509.GeneralName) -> None:
    """The certificate need not name the address that the server is reached at."""
    root = Issuer()
    alice = written(tmp_path / "alice", root.pem, root.issue(uri("fed://alice")))
    bob = written(tmp_path / "bob", root.pem, root.issue(uri("fed://bob"), host))

    async def scenario() -> None:
        async with listening(bob) as address:
            link = GrpcLink("alice", "bob", address, alice)
            assert await link.connect(hello("alice"), timeout_s=LIMIT_S) == hello("bob")
            await link.close()

    run(scenario())


@pytest.mark.parametrize("renewed", [False, True])
def test_the_channels_reconnect_to_the_very_certificate_that_was_checked(
    tmp_path: Path, authority: Authority, credentials: Mapping[str, TLSConfig], renewed: bool
) -> None:
    after = written(tmp_path, authority.pem, authority.issue("bob")) if renewed else credentials["bob"]

    async def tells_until(link: GrpcLink, text: str) -> None:
        while True:
            try:
                await link.tell(Notice(NoticeKind.READY, 0), timeout_s=LIMIT_S)
            except PeerUnreachable as error:
                if text in str(error):
                    return

    async def scenario() -> None:
        first = GrpcListener("bob", Address("127.0.0.1", 1), credentials["bob"], any_port=True)
        await first.start(Recorder())
        link = GrpcLink("alice", "bob", first.address, credentials["alice"])
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        await first.close()
        second = GrpcListener("bob", first.address, after)
        await second.start(Recorder())
        try:
            reason = "CERTIFICATE_VERIFY_FAILED" if renewed else "wants to be greeted first"
            await asyncio.wait_for(tells_until(link, reason), LIMIT_S)
            assert (second.statistics().refused == 0) == renewed
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
            await link.tell(Notice(NoticeKind.READY, 0), timeout_s=LIMIT_S)
        finally:
            await link.close()
            await second.close()

    run(scenario())


def test_a_taken_port_is_named_and_is_free_again_once_closed(credentials: Mapping[str, TLSConfig]) -> None:
    async def scenario() -> None:
        async with listening(credentials["bob"]) as address:
            with pytest.raises(AddressInUse, match=rf"cannot listen at {address}: another process listens there"):
                await GrpcListener("bob", address, None).start(Recorder())
        for tls in (None, credentials["bob"]) * 5:
            listener = GrpcListener("bob", address, tls)
            await listener.start(Recorder())
            assert listener.address == address
            await listener.close()

    run(scenario())


def test_e40_who_does_not_answer_is_asked_anew_and_the_first_answer_counts(
    monkeypatch: pytest.MonkeyPatch, good: TLSConfig, tmp_path: Path, authority: Authority
) -> None:
    """The first question is lost; the kernel would go on asking, but seldom."""
    open_connection = asyncio.open_connection
    asked: list[asyncio.Event] = []

    async def ask(*arguments: Any, **options: Any) -> Any:
        asked.append(ended := asyncio.Event())
        try:
            if len(asked) == 1:
                await asyncio.Event().wait()
            return await open_connection(*arguments, **options)
        finally:
            ended.set()

    monkeypatch.setattr(asyncio, "open_connection", ask)
    monkeypatch.setattr("fed.transport.identity.ASK_AGAIN_S", 0.01)

    async def scenario() -> None:
        async with listening(written(tmp_path / "bob", authority.pem, authority.issue("bob"))) as address:
            link = GrpcLink("alice", "bob", address, good)
            try:
                assert (await link.connect(hello("alice"), timeout_s=LIMIT_S)).party == "bob"
            finally:
                await link.close()
        # None is left behind, neither those that waited nor those that came second.
        assert len(asked) > 1
        assert all(ended.is_set() for ended in asked)

    run(scenario())
