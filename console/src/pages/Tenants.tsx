/** /: which tenant; straight on where there is one. */
import { useQuery } from "@tanstack/react-query";
import { Link, Navigate } from "@tanstack/react-router";

import { sessionQuery } from "../api/queries";
import { Loaded, Nothing } from "../parts/controls";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Name } from "../parts/text";
import { useTexts } from "../texts";

export function TenantsPage() {
  const { t } = useTexts();
  usePageTitle(t("tenants.title"));
  const session = useQuery(sessionQuery);
  return (
    <main id="main" className="narrow" tabIndex={-1}>
      <Loaded of={session}>
        {({ tenants }) => {
          if (tenants.length === 1) return <Navigate to="/t/$tenant" params={{ tenant: tenants[0]!.tenant }} replace />;
          return (
            <>
              <PageHead title={t("tenants.title")} />
              {tenants.length === 0 && <Nothing>{t("tenants.none")}</Nothing>}
              <ul className="tenant-list">
                {tenants.map((each) => (
                  <li key={each.tenant}>
                    <Link to="/t/$tenant" params={{ tenant: each.tenant }} className="card">
                      <strong>
                        <Name text={each.name || each.tenant} />
                      </strong>
                      <span className="muted">
                        {each.tenant} · {t(`role.${each.role}`)}
                      </span>
                    </Link>
                  </li>
                ))}
              </ul>
            </>
          );
        }}
      </Loaded>
    </main>
  );
}
