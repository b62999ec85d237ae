"""Installing: the mirror comes from apt's own configuration, failures are one sentence, the cache is all or nothing."""

import os
import threading
from pathlib import Path

import pytest

from iot_platform.local import install
from iot_platform.local.errors import LocalStackError


def _quiet(_text: str) -> None: ...


def test_mirror_of_deb822_sources_ignores_comments_and_other_archives(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text("Types: deb\n# http://snapshot.invalid/archive/debian\nURIs: http://mirror.invalid/debian\n")
    (folder / "a-vendor.list").write_text("deb [signed-by=/k.gpg] https://vendor.invalid/apt stable main\n")
    assert install.debian_mirror(tmp_path) == "http://mirror.invalid/debian"


def test_mirror_of_one_line_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "# deb http://old.invalid/debian x main\ndeb [arch=amd64] http://mirror.invalid/debian/ x main\n"
    )
    assert install.debian_mirror(tmp_path) == "http://mirror.invalid/debian/"


def test_no_mirror_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="IOT_DATABASE_URL"):
        install.debian_mirror(tmp_path)


def test_missing_package_without_root_is_a_command_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LocalStackError, match=r"default-jre-headless \(Kafka needs Java\).*Run as root: .*default-jre-headless"):
        install.install_packages({"default-jre-headless": "Kafka needs Java"}, tmp_path / "log", _quiet)


def test_failed_command_shows_its_end_and_its_log(tmp_path: Path) -> None:
    log = tmp_path / "install.log"
    with pytest.raises(LocalStackError, match=r"fetching failed[^\n]*install\.log(.|\n)*no route to mirror"):
        install.run_logged(["sh", "-c", "echo no route to mirror >&2; exit 7"], log, _quiet, what="fetching")
    assert "no route to mirror" in log.read_text("utf-8")


def _fill_half(target: Path) -> None:
    with install.cached(target, _quiet) as folder:
        assert folder is not None
        (folder / "one.jar").touch()
        raise RuntimeError("half way")


def test_cached_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "jars"
    with pytest.raises(RuntimeError, match="half way"):
        _fill_half(target)
    assert list(tmp_path.glob("jars*")) == []
    assert list(tmp_path.glob(".jars.new-*")) == []
    with install.cached(target, _quiet) as folder:
        assert folder is not None
        (folder / "one.jar").touch()
    assert [path.name for path in target.iterdir()] == ["one.jar"]
    with install.cached(target, _quiet) as folder:
        assert folder is None


def test_two_at_once_make_a_cached_folder_once(tmp_path: Path) -> None:
    made: list[bool] = []
    together = threading.Barrier(2)

    def work() -> None:
        together.wait()
        with install.cached(tmp_path / "rootfs", _quiet) as folder:
            made.append(folder is not None)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, True]
