"""Nodes that are root file systems: each an overlay over one that is made once, in mount and network namespaces of their own.

Nothing of a node reaches this machine: its firewall is set in a network that has only itself, without any other machine in it.
"""

import hashlib
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from iot_platform_tests.support.deploy.tools import CHECKOUT

ANSIBLE = CHECKOUT / "deploy/ansible"
ADDRESSES = {"rke2-server-1": "192.168.1.101", "rke2-agent-1": "192.168.1.102", "rke2-agent-2": "192.168.1.103"}
TOKEN, SECRET = "a1b2" * 16, 'Zx9$y"q'  # JSON and YAML have to take it as it is
_ENTER = """set -e
folder=$1 lower=$2; shift 2
ip link set lo up
for node in "$folder"/nodes/*; do
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$node/upper,workdir=$node/work" "$node/root"
    mount -t proc proc "$node/root/proc"; mount --rbind /dev "$node/root/dev"
done
exec "$@"
"""


@dataclass
class Nodes:
    """Three of them, and what the machine that runs the playbook has: secrets, a release of RKE2 that is none."""

    folder: Path
    lower: Path
    ansible: Path
    secrets: Path = field(init=False)
    release: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ADDRESSES:
            for part in ("upper/etc/netplan", "work", "root"):
                (self.folder / "nodes" / name / part).mkdir(parents=True)
            upper = self.folder / "nodes" / name / "upper/etc"
            (upper / "fstab").write_text("UUID=1 / ext4 defaults 0 1\n/swap.img\tnone\tswap\tsw\t0\t0\n", "ascii")
            (upper / "netplan/50-cloud-init.yaml").write_text("network: {version: 2, ethernets: {eth0: {dhcp4: true}}}\n", "ascii")
        self.secrets = self.folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "rke2-token").write_text(TOKEN + "\n", "ascii")
        (self.secrets / "rke2-puller.json").write_text(json.dumps({"name": "robot$rke2-puller", "secret": SECRET}), "ascii")
        self.release = self.folder / "release"
        self._write_release()
        self.inventory = self.folder / "inventory.yaml"
        own = yaml.safe_load((ANSIBLE / "inventory.yaml").read_text("utf-8"))
        own["nodes"]["vars"] = {"ansible_connection": "community.general.chroot"}
        for group in own["nodes"]["children"].values():
            for name, values in group["hosts"].items():
                values["ansible_host"] = str(self.root(name))
        self.inventory.write_text(yaml.safe_dump(own), "utf-8")

    def root(self, name: str) -> Path:
        """Where a node's files are, seen from within the namespaces."""
        return self.folder / "nodes" / name / "root"

    def file(self, name: str, path: str) -> Path:
        """One that was written on a node."""
        return self.folder / "nodes" / name / "upper" / path

    def files(self) -> dict[Path, bytes]:
        """What was written on the nodes so far of settings and programs, with its content."""
        folders = (node / "upper" / name for node in (self.folder / "nodes").iterdir() for name in ("etc", "usr/local", "var/lib/rancher"))
        return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that sees the nodes."""
        private = ["unshare", "--mount", "--net", "--propagation", "private"]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
            "HOME": str(self.folder),
            "PATH": f"{self.ansible}:/usr/sbin:/usr/bin:/sbin:/bin",
            "ANSIBLE_NOCOLOR": "1",
        }
        whole = [*private, "sh", "-c", _ENTER, "sh", str(self.folder), str(self.lower), *command]
        return subprocess.run(whole, cwd=ANSIBLE, env=environment, capture_output=True, text=True, check=False)

    def on(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command of a node's own."""
        return self.run("chroot", str(self.root(name)), *command)

    def playbook(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The playbook."""
        values = {"secrets_dir": str(self.secrets), "rke2_artifacts_dir": str(self.release)}
        return self.run("ansible-playbook", "-i", str(self.inventory), "-e", json.dumps(values), *options, "site.yaml")

    def _write_release(self) -> None:
        parts = self.folder / "parts"
        for path in ("bin/rke2", "lib/systemd/system/rke2-server.service", "lib/systemd/system/rke2-agent.service"):
            (parts / path).parent.mkdir(parents=True, exist_ok=True)
            (parts / path).write_text("not RKE2\n", "ascii")
        self.release.mkdir()
        archive = self.release / "rke2.linux-amd64.tar.gz"
        with tarfile.open(archive, "w:gz") as out:
            out.add(parts, ".")
        sums = {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest(), "rke2-images.linux-amd64.tar.gz": "0" * 64}
        (self.release / "sha256sum-amd64.txt").write_text("".join(f"{known}  {name}\n" for name, known in sums.items()), "ascii")
