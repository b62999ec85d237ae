"""What is in an image's root file system, as CycloneDX 1.6: Debian packages by dpkg's entries, Python packages by their dist-info.

    python3 sbom.py ROOT NAME VERSION DIGEST >NAME.sbom.json

The same root gives the same bytes: no serial number, no time of making.
"""

import json
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import quote

Component = dict[str, object]


def bill(root: Path, name: str, version: str, digest: str) -> dict[str, object]:
    """The bill of the image `name`, whose manifest has this digest (`sha256:…`).

    Raises:
        ValueError: the root holds no Debian or no Python packages; a scanner would find it free of faults.
    """
    components = [*_debian(root), *_python(root)]
    if {str(item["purl"])[:8] for item in components} != {"pkg:deb/", "pkg:pypi"}:
        raise ValueError(f"{root} has lost its package lists")
    image = {"type": "container", "bom-ref": name, "name": name, "version": version, "purl": f"pkg:oci/{name}@{quote(digest)}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": image},
        "components": sorted(components, key=lambda item: str(item["purl"])),
    }


def _debian(root: Path) -> Iterator[Component]:
    release = dict(line.split("=", 1) for line in (root / "etc/os-release").read_text("utf-8").splitlines() if "=" in line)
    distribution = f"debian-{release['VERSION_ID'].strip(chr(34))}"
    for file in (root / "var/lib/dpkg/status.d").iterdir():
        fields = HeaderParser().parsestr(file.read_text("utf-8"))
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}&distro={distribution}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _python(root: Path) -> Iterator[Component]:
    for file in (root / "opt/iot-platform/lib").glob("python*/site-packages/*.dist-info/METADATA"):
        fields = HeaderParser().parsestr(file.read_text("utf-8"))
        name, version = fields["Name"], fields["Version"]
        purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}"
        component: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        if licence := fields["License-Expression"]:
            component["licenses"] = [{"expression": licence}]
        yield component


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1]), *sys.argv[2:5]), indent=1))
