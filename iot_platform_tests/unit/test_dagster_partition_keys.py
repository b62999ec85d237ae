"""Partition keys of tenants and projects: readable, accepted by Dagster, reversible."""

import pytest
from dagster._core.definitions.partitions.utils.base import raise_error_on_invalid_partition_key_substring
from hypothesis import given
from hypothesis import strategies as st

from iot_platform.orchestration.partition_keys import project_key, project_of_key, tenant_key, tenant_of_key

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
nasty = st.text(st.sampled_from("./%|, .\"'[]…\t\u200b"), min_size=1, max_size=12)


@given(names | nasty, names | nasty)
def test_round_trip(tenant: str, project: str) -> None:
    key = project_key(tenant, project)
    assert project_of_key(key) == (tenant, project)
    assert tenant_of_key(tenant_key(tenant)) == tenant
    raise_error_on_invalid_partition_key_substring([key, tenant_key(tenant)])
    assert "|" not in key
    assert key.isprintable()


@pytest.mark.parametrize(
    ("tenant", "project", "key"),
    [
        ("1968193631353446400", "1968193691042586624", "1968193631353446400/1968193691042586624"),
        ("工厂", "产线-1", "工厂/产线-1"),
        ("a/b", "c d", "a%2Fb/c%20d"),
        ("100%", "x...y", "100%25/x%2E%2E%2Ey"),
    ],
)
def test_keys_stay_readable(tenant: str, project: str, key: str) -> None:
    assert project_key(tenant, project) == key


@pytest.mark.parametrize("key", ["tenant", "/project", "tenant/", "a/b/c", ""])
def test_what_is_no_project_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="expected tenant/project"):
        project_of_key(key)
