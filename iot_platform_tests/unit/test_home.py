"""Where the user's files are: beside the code in a checkout, apart from it and from the current directory in an installation."""

from pathlib import Path

import pytest

from ingest_daemon import home
from ingest_daemon import settings as ingest_settings
from ingest_daemon.errors import SettingsError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As after installing a wheel; returns the current directory."""
    monkeypatch.setattr(home, "PACKAGES", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkout_keeps_everything_beside_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2].resolve()
    assert home.checkout() == home.directory() == root
    assert home.env_files() == (root / ".env", tmp_path / ".env")
    assert home.local_dir() == root / ".local"


def test_an_installation_does_not_depend_on_the_current_directory(installed: Path) -> None:
    assert home.checkout() is None
    assert home.directory() == installed
    assert home.env_files() == (installed / ".env",)
    assert ingest_settings.load().ingest_state_dir == Path.home() / ".local" / "share" / "iot-platform" / "ingest"


def test_without_a_home_directory_a_folder_must_be_named(monkeypatch: pytest.MonkeyPatch, installed: Path) -> None:
    def nobody(path: Path) -> Path:
        if path.parts[0] == "~":
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(SettingsError, match=r"^IOT_INGEST_STATE_DIR: this user has no home directory"):
        ingest_settings.load()
    monkeypatch.setenv("IOT_INGEST_STATE_DIR", str(installed))
    assert ingest_settings.load().ingest_state_dir == installed
