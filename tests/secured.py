"""Apache Kafka with TLS, SASL and ACLs, and Redis with TLS and an ACL user. Their certificates are made here.

Kafka has four listeners: PLAINTEXT, on which the tests make topics and ACLs (its user ANONYMOUS may do everything, and
no client of another listener can be it), the controller's, SASL_SSL, and SSL that demands a client certificate.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path

import servers

from monitor.source.embedded import HOST, accepts, free_ports

USER, PASSWORD = "monitor", "correct horse battery staple"
OTHER = "somebody"


def certificates(folder: Path, host: str = HOST) -> Path:
    """An authority, a server certificate for ``host``, and a client certificate for :data:`USER`; the folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    name = f"IP:{host}" if host[0].isdigit() else f"DNS:{host}"
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]
    openssl(*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for who, subject, extension in (
        ("server", "/CN=server", f"subjectAltName={name}"), ("client", f"/CN={USER}", "extendedKeyUsage=clientAuth"),
    ):  # fmt: skip
        openssl(*new, "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", subject)
        (folder / f"{who}.ext").write_text(extension + "\n")
        openssl("x509", "-req", "-days", "2", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{who}.pem", "-extfile", f"{who}.ext")  # fmt: skip
        (folder / f"{who}.both").write_text((folder / f"{who}.key").read_text() + (folder / f"{who}.pem").read_text())
    return folder


def token(subject: str, life_s: float = 3_600) -> str:
    """An unsecured bearer token, as a broker without an identity provider takes it: header, claims, no signature."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + life_s})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class SecuredKafka(servers.ApacheKafka):
    """One node; ``bootstrap`` is the listener for the tests' own use, ``secure`` and ``mutual`` those of clients."""

    def __init__(self, host: str = HOST):
        super().__init__()
        self.files = certificates(self.directory / "certificates", host)
        secure, mutual = free_ports(2)
        self.secure, self.mutual = f"{HOST}:{secure}", f"{HOST}:{mutual}"

    def _listeners(self, node: int, controller_port: int) -> dict[str, str]:
        public = f"PLAINTEXT://{HOST}:{self.ports[node]},SECURE://{self.secure},MUTUAL://{self.mutual}"
        login = "org.apache.kafka.common.security"
        return {
            "listeners": f"{public},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": public,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.files / "server.both"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.files / "ca.pem"),
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+)$/$1/",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.secure.plain.sasl.jaas.config":
                f'{login}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.secure.oauthbearer.sasl.jaas.config":
                f"{login}.oauthbearer.OAuthBearerLoginModule required;",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }  # fmt: skip

    def _users(self) -> list[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]

    def _wait(self, node: int) -> None:
        super()._wait(node)
        ports = [int(address.rsplit(":", 1)[1]) for address in (self.secure, self.mutual)]
        self.nodes[node].wait_until(lambda: all(map(accepts, ports)), servers.START_S)

    def allow(self, kind: str, name: str, *operations: str, user: str = USER) -> None:
        """Let a user do these with a topic or a group of this name."""
        from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

        with servers.admin(self.bootstrap) as client:
            client.create_acls(
                [
                    ACL(f"User:{user}", "*", ACLOperation[o], ACLPermissionType.ALLOW,
                        ResourcePattern(ResourceType[kind], name))
                    for o in operations
                ]
            )  # fmt: skip


class SecuredRedis(servers.RedisServer):
    """TLS only, the default user off, one user with the rights that the README gives."""

    scheme = "rediss"

    def __init__(self, rights: str):
        super().__init__()
        self.rights = rights

    def _command(self) -> list[str]:
        files = certificates(self.directory / "certificates")
        users = self.directory / "users.acl"
        users.write_text(
            f"user default off\nuser {USER} on >{PASSWORD.replace(' ', '-')} resetkeys ~abm:* resetchannels -@all"
            f" {self.rights}\nuser root on >root ~* &* +@all\n"
        )
        binary = shutil.which("redis-server")
        if binary is None:
            raise servers.Unavailable("Redis 7 needs redis-server: apt-get install redis-server")
        command = servers.redis_command(binary, 0, self.directory)
        return [*command, "--tls-port", str(self.port), "--tls-cert-file", str(files / "server.pem"),
                "--tls-key-file", str(files / "server.key"), "--tls-ca-cert-file", str(files / "ca.pem"),
                "--tls-auth-clients", "no", "--aclfile", str(users)]  # fmt: skip

    def _ready(self) -> bool:
        return accepts(self.port)

    def _version(self) -> str:
        return "Redis over TLS with ACLs"
