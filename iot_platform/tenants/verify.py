"""Checks an export: its manifest is unchanged, and every file of it is there, unchanged, and has the rows that it says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl

from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.export import DIGEST, MANIFEST, SEALED, digest_of


def verify_export(folder: Path, on_progress: Callable[[int, int], None] = lambda *_: None) -> tuple[dict[str, int], list[str], str]:
    """Rows by table, what is wrong (empty: nothing), and what could not be checked (empty: nothing). Reads every file.

    Raises:
        TenantError: there is no manifest: the export is not finished, or this is none.
    """
    path = folder / MANIFEST
    if not path.exists():
        unfinished = (folder / "export.part.jsonl").exists()
        remedy = "the export was interrupted: run `iot tenant export` again" if unfinished else "this is no export"
        raise TenantError(f"{folder} has no {MANIFEST}: {remedy}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        files = [(str(file["name"]), str(file["table"]), str(file["sha256"]), int(file["rows"])) for file in manifest["files"]]
        sealed, older, digest = manifest.get(DIGEST), int(manifest["format"]) < SEALED, digest_of(manifest)
        expected = {str(table): int(count) for table, count in manifest["rows"].items()}
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise TenantError(f"{path} is damaged: {error}") from error
    rows: dict[str, int] = dict.fromkeys(expected, 0)
    wrong: list[str] = []
    unchecked = ""
    if sealed is None and older:
        unchecked = (
            f"{MANIFEST} is of an older export, without a digest of itself: whether it was changed cannot be checked, only the files"
        )
    elif sealed != digest:
        wrong.append(f"{MANIFEST}: it was changed (SHA-256 of its contents differs)")
    for number, (name, table, sha256, count) in enumerate(files, 1):
        if problem := _problem(folder / name, sha256, count):
            wrong.append(f"{name}: {problem}")
        rows[table] = rows.get(table, 0) + count
        on_progress(number, len(files))
    wrong += [
        f"{table}: the files have {rows[table]} rows, the manifest says {count}"
        for table, count in {**dict.fromkeys(rows, 0), **expected}.items()
        if rows[table] != count
    ]
    known = {name for name, *_ in files} | {MANIFEST}
    strange = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    wrong += [f"{name}: is not in the manifest" for name in strange if name not in known]
    return rows, wrong, unchecked


def _problem(path: Path, sha256: str, rows: int) -> str:
    if not path.exists():
        return "is missing"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            return "its bytes changed (SHA-256 differs)"
    found = pl.scan_parquet(path).select(pl.len()).collect().item()
    return "" if found == rows else f"has {found} rows, the manifest says {rows}"
