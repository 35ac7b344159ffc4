"""A Kafka of its own that lets in nobody who does not prove who they are: by SCRAM over TLS, or by a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from deploy.local.kafka import Kafka
from deploy.local.processes import HOST, ports_of, run

USER = "worker"
FIRST_PASSWORD = "first"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"

# As Kafka's protocol numbers them.
TOPIC, GROUP = 2, 3
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
_LITERAL, _ALLOW = 3, 3


class Certificate(NamedTuple):
    """Files in PEM."""

    certfile: Path
    keyfile: Path


class Acl(NamedTuple):
    """What a user may do."""

    principal: str
    kind: int
    name: str
    operation: int


class SecureKafka(Kafka):
    """Beside the plain listener, for the tests' own use, there are `SCRAM` and `MUTUAL`, where ACLs count."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = trustme.CA()
        self.cafile = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.cafile))
        self._ports = ports_of(self._subfolder("more-ports"), 2)

    @property
    def scram(self) -> str:
        return f"{HOST}:{self._ports[0]}"

    @property
    def mutual(self) -> str:
        return f"{HOST}:{self._ports[1]}"

    def certificate(self, common_name: str) -> Certificate:
        """A new one, of the authority that the broker trusts, in the same files."""
        issued = self.authority.issue_cert(HOST, common_name=common_name)
        folder = self._subfolder(common_name)
        certificate = Certificate(folder / "cert.pem", folder / "key.pem")
        issued.cert_chain_pems[0].write_to_path(str(certificate.certfile))
        issued.private_key_pem.write_to_path(str(certificate.keyfile))
        return certificate

    def set_password(self, user: str, password: str) -> None:
        """Makes the user where it is not there yet. Connections that are open stay."""
        options = [f"--bootstrap-server={self.bootstrap_servers}", "--entity-type=users", f"--entity-name={user}"]
        change = f"--add-config=SCRAM-SHA-512=[iterations=4096,password={password}]"
        run(self._java("kafka.admin.ConfigCommand", *options, "--alter", change), cwd=self.folder)

    def replace_authority(self) -> None:
        """From its next start on the broker trusts, and is signed by, another one."""
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(self.cafile))
        self._keystore.write_bytes(self._pem())

    async def allow(self, acls: Sequence[Acl]) -> None:
        """Lets users do this, and nothing else."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        for acl in acls:
            request = CreateAclsRequest(acl.kind, acl.name, _LITERAL, acl.principal, "*", acl.operation, _ALLOW)
            answer = await admin._send_request(request)
            assert [code for code, _ in answer.creation_responses] == [0]
        await admin.close()

    def _subfolder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        self._keystore.write_bytes(self._pem())
        more = f",SCRAM://{self.scram},MUTUAL://{self.mutual}"
        return settings | {
            "listeners": settings["listeners"] + more,
            "advertised.listeners": settings["advertised.listeners"] + more,
            "listener.security.protocol.map": settings["listener.security.protocol.map"] + ",SCRAM:SASL_SSL,MUTUAL:SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{SCRAM_MODULE} required;",
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.cafile),
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]*).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    @property
    def _keystore(self) -> Path:
        return self.folder / "broker.pem"

    def _pem(self) -> bytes:
        """Kafka reads keys in PKCS 8 only."""
        issued = self.authority.issue_cert(HOST)
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain
