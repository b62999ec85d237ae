"""console/openapi.json, from which the front end's types are made, is what the API's code says."""

from scripts.openapi import TARGET, render


def test_the_openapi_document_is_current() -> None:
    assert TARGET.read_text("utf-8") == render(), "`make openapi` writes it"
