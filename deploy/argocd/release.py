"""Sets the tag of our own images in an overlay; committing the change deploys it where ArgoCD follows the overlay, reverting it goes back.

    python3 deploy/argocd/release.py COMMIT                      # as `make images` tags them, and as Harbor must have them
    python3 deploy/argocd/release.py --overlay managed COMMIT    # the overlay rke2 unless said

Not by ArgoCD's image parameters: those leave the code server's DAGSTER_CURRENT_IMAGE, and runs would stay with the old image.
"""

import argparse
import re
import sys
from pathlib import Path

OVERLAYS = Path(__file__).resolve().parents[1] / "kubernetes/overlays"
OURS = ("iot-ingest", "iot-platform")
NO_RELEASE = ("latest", "not-built", "unknown")


def set_tag(text: str, tag: str) -> str:
    """The kustomization with that tag for each of our images. Raises ValueError where one is not there once."""
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII) or tag in NO_RELEASE:
        raise ValueError(f"not a tag for a release: {tag!r}")
    for name in OURS:
        text, found = re.subn(rf"(- name: {name}\n\s+newName: \S+\n\s+newTag: )\S+", rf'\g<1>"{tag}"', text)
        if found != 1:
            raise ValueError(f"{found} entries for {name}, in the order name, newName, newTag")
    return text


def main() -> int:
    """Change the file; 1 when it is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlay", choices=["rke2", "managed"], default="rke2")
    parser.add_argument("tag")
    given = parser.parse_args()
    file = OVERLAYS / given.overlay / "kustomization.yaml"
    try:
        changed = file.with_name(f"{file.name}.new")
        changed.write_text(set_tag(file.read_text("utf-8"), given.tag), "utf-8")
        changed.replace(file)
    except (ValueError, OSError) as error:
        print(f"error: {file}: {error}", file=sys.stderr)
        return 1
    if given.tag.endswith("-dirty"):
        print(f"note: {given.tag} is no commit. Nodes that have an image of that tag keep it, whatever is built later", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
