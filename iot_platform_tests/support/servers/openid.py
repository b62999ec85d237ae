"""A real OpenID provider (npm's oidc-provider, run by Node), and a browser's way through its forms."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2

from iot_platform.local.install import install_packages, which
from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support import npm

FOLDER = Path(__file__).parent / "oidc_provider"
SECRET = "a secret of the console at its provider"
MOST_STEPS = 15


@contextmanager
def openid_provider(redirect_uri: str, folder: Path) -> Iterator[str]:
    """Its issuer, while it runs. Client `console`; any name logs in."""
    sources = [FOLDER / name for name in ("package.json", "package-lock.json", "provider.js")]
    version = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    target, log = Settings().cache_dir.expanduser() / f"oidc-provider-{version}", folder / "install.log"
    install_packages(npm.missing(target, "runs an OpenID provider in tests"), log, lambda _: None)
    installed = npm.installed(sources, target, log, lambda _: None)
    (port,) = free_ports(1)
    command = [which("node") or "node", str(installed / "provider.js"), str(port), redirect_uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def walk(browser: httpx2.Client, url: str, name: str) -> str:
    """Follow redirects and fill in the provider's forms as this user, until the console sends the browser to a page: its path."""
    console = urlsplit(url).netloc
    answer = browser.get(url)
    for _ in range(MOST_STEPS):
        if answer.is_redirect:
            url = urljoin(url, answer.headers["location"])
            parts = urlsplit(url)
            if parts.netloc == console and not parts.path.startswith("/api/"):
                return url.partition(console)[2]
            answer = browser.get(url)
            continue
        assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:500]}"
        action, prompt = re.search(r'action="([^"]+)"', answer.text), re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert action, answer.text
        assert prompt, answer.text
        url = urljoin(url, action[1])
        answer = browser.post(url, data={"prompt": prompt[1], "login": name, "password": "any"})
    raise AssertionError(f"no end after {MOST_STEPS} steps: {url}")
