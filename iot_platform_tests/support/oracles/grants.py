"""Every right that a database gives to the platform's roles and to PUBLIC, as text that can be compared and checked in.

`python -m iot_platform_tests.support.oracles.grants URL >iot_platform_tests/contract/grants.json`,
URL being a freshly migrated database, as its owner.
"""

import json
import sys
from collections import defaultdict
from typing import Final

import psycopg2

# Extensions' objects are their own business; chunks take their rights from their hypertable (a test of its own). A null ACL is the
# default one.
_RIGHTS: Final = """
WITH object (kind, name, owner, acl, class, oid) AS (
    SELECT 'database', 'the database'::text, datdba, coalesce(datacl, acldefault('d', datdba)), 'pg_database'::regclass, oid
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'schema', nspname::text, nspowner, coalesce(nspacl, acldefault('n', nspowner)), 'pg_namespace'::regclass, oid
    FROM pg_namespace
    UNION ALL
    SELECT CASE relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE 'table' END, format('%I.%I', nspname, relname), relowner,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)), 'pg_class'::regclass, c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND nspname <> '_timescaledb_internal'
    UNION ALL
    SELECT 'column', format('%I.%I.%I', nspname, relname, attname), relowner, attacl, 'pg_class'::regclass, c.oid
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE attacl IS NOT NULL AND nspname <> '_timescaledb_internal'
    UNION ALL
    SELECT CASE WHEN prosecdef THEN 'function with its owner''s rights' ELSE 'function' END,
           format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)),
           proowner, coalesce(proacl, acldefault('f', proowner)), 'pg_proc'::regclass, p.oid
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
)
SELECT coalesce(r.rolname, 'PUBLIC'), format('%s %s: %s', kind, name,
           string_agg(privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END, ', ' ORDER BY privilege_type))
FROM object o CROSS JOIN aclexplode(o.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE a.grantee <> o.owner AND name !~ '^(pg_|information_schema)'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
GROUP BY r.rolname, kind, name
UNION ALL
SELECT r.rolname, 'role: ' || concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreaterole THEN 'createrole' END,
    CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolreplication THEN 'replication' END, CASE WHEN rolbypassrls THEN 'bypassrls' END,
    (SELECT 'member of ' || string_agg(g.rolname, ', ' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
     WHERE m.member = r.oid))
FROM pg_roles r WHERE rolname IN ('iot_writer', 'iot_reader', 'iot_tenant', 'iot_console')
ORDER BY 1, 2"""


def rights(url: str) -> dict[str, list[str]]:
    """Role (or PUBLIC) → its rights; `*` marks those that it may pass on. The owner has all and is left out."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(_RIGHTS)
            found: dict[str, list[str]] = defaultdict(list)
            for role, text in cursor.fetchall():
                found[role].append(text)
            return dict(found)
    finally:
        connection.close()


def dump(found: dict[str, list[str]]) -> str:
    """As it is checked in."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(dump(rights(sys.argv[1])))
