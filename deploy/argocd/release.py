"""Sets the tag of our own images in the overlay that ArgoCD follows; committing the change deploys it, reverting it goes back.

    python3 deploy/argocd/release.py COMMIT    # as `make images` tags them, and as Harbor must have them

Not by ArgoCD's image parameters: those leave the code server's DAGSTER_CURRENT_IMAGE, and runs would stay with the old image.
"""

import re
import sys
from pathlib import Path

OVERLAY = Path(__file__).resolve().parents[1] / "kubernetes/overlays/rke2/kustomization.yaml"
OURS = ("iot-ingest", "iot-platform")
NO_RELEASE = ("latest", "not-built", "unknown")


def set_tag(text: str, tag: str) -> str:
    """The kustomization with that tag for each of our images. Raises ValueError where one is not there once."""
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII) or tag in NO_RELEASE:
        raise ValueError(f"not a tag for a release: {tag!r}")
    for name in OURS:
        text, found = re.subn(rf"(- name: {name}\n\s+newName: \S+\n\s+newTag: )\S+", rf'\g<1>"{tag}"', text)
        if found != 1:
            raise ValueError(f"{OVERLAY}: {found} entries for {name}, in the order name, newName, newTag")
    return text


def main() -> int:
    """Change the file; 1 when it is not as expected."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        changed = OVERLAY.with_name(f"{OVERLAY.name}.new")
        changed.write_text(set_tag(OVERLAY.read_text("utf-8"), sys.argv[1]), "utf-8")
        changed.replace(OVERLAY)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if sys.argv[1].endswith("-dirty"):
        print(f"note: {sys.argv[1]} is no commit. Nodes that have an image of that tag keep it, whatever is built later", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
