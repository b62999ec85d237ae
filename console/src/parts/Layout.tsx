/** What stands around every page: title bar, tenant, pages, language, theme, who is logged in. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate, useParams } from "@tanstack/react-router";
import { useEffect, type ReactNode } from "react";

import { answerOf, api } from "../api/client";
import type { GrantedTenant } from "../api/model";
import { balanceQuery, sessionQuery } from "../api/queries";
import { setLanguage, useTexts, type Key } from "../texts";
import { Badge, Button, Waiting as WaitingNote } from "./controls";
import { Name } from "./text";
import { setTheme, useThemeChoice, type Choice } from "./theme";
import { useNow } from "./useNow";
import { verdictOf } from "./verdict";

export function Root() {
  return <Outlet />;
}

export function Waiting() {
  return (
    <main>
      <WaitingNote />
    </main>
  );
}

export function Missing() {
  const { t } = useTexts();
  return (
    <main className="narrow">
      <h1>{t("not-found.title")}</h1>
      <p>{t("not-found.words")}</p>
      <p>
        <Link to="/">{t("not-found.back")}</Link>
      </p>
    </main>
  );
}

/** Puts the page's name into the tab, and says it where a screen reader listens. */
export function usePageTitle(title: string): void {
  const { t } = useTexts();
  useEffect(() => {
    document.title = `${title} · ${t("product")}`;
  }, [title, t]);
}

/** A page's heading, with what belongs beside it. */
export function PageHead({ title, children }: { title: ReactNode; children?: ReactNode }) {
  return (
    <div className="page-head">
      <h1>{title}</h1>
      {children && <div className="page-tools">{children}</div>}
    </div>
  );
}

export function LanguageAndTheme() {
  const { t, language } = useTexts();
  const theme = useThemeChoice();
  return (
    <>
      <button type="button" className="bar-button" lang={language === "en" ? "zh-CN" : "en"} onClick={() => setLanguage(language === "en" ? "zh-CN" : "en")}>
        {language === "en" ? "中文" : "English"}
      </button>
      <label className="bar-select">
        <span className="unseen">{t("theme")}</span>
        <select value={theme} onChange={(event) => setTheme(event.target.value as Choice)}>
          <option value="system">{t("theme.system")}</option>
          <option value="light">{t("theme.light")}</option>
          <option value="dark">{t("theme.dark")}</option>
        </select>
      </label>
    </>
  );
}

export function UserLayout() {
  const { t } = useTexts();
  const session = useQuery(sessionQuery);
  const client = useQueryClient();
  const navigate = useNavigate();
  const { tenant } = useParams({ strict: false });
  const leave = async () => {
    await answerOf(api.DELETE("/api/v1/session")).catch(() => undefined);
    client.clear();
    await navigate({ to: "/login", search: {} });
  };
  return (
    <>
      <a className="skip" href="#main">
        {t("skip")}
      </a>
      <header className="bar">
        <Link to="/" className="brand">
          <img src="/icon.svg" alt="" width="22" height="22" />
          {t("product")}
        </Link>
        {tenant && session.data && <TenantChoice tenant={tenant} tenants={session.data.tenants} />}
        <span className="bar-space" />
        <LanguageAndTheme />
        {session.data && (
          <>
            {session.data.user.role === "admin" && (
              <Link to="/admin" className="bar-button">
                {t("page.admin")}
              </Link>
            )}
            <span className="bar-user">
              <Name text={session.data.user.display_name || session.data.user.name} />
            </span>
            <Button kind="quiet" onClick={() => void leave()}>
              {t("log-out")}
            </Button>
          </>
        )}
      </header>
      <Outlet />
    </>
  );
}

function TenantChoice({ tenant, tenants }: { tenant: string; tenants: readonly GrantedTenant[] }) {
  const { t } = useTexts();
  const navigate = useNavigate();
  if (tenants.length < 2)
    return (
      <span className="bar-tenant">
        <Name text={tenants.find((each) => each.tenant === tenant)?.name || tenant} />
      </span>
    );
  return (
    <label className="bar-select">
      <span className="unseen">{t("tenant")}</span>
      <select value={tenant} onChange={(event) => void navigate({ to: "/t/$tenant", params: { tenant: event.target.value } })}>
        {tenants.map((each) => (
          <option key={each.tenant} value={each.tenant}>
            {each.name || each.tenant}
          </option>
        ))}
      </select>
    </label>
  );
}

const PAGES = [
  ["/t/$tenant", "page.live"],
  ["/t/$tenant/balance", "page.balance"],
  ["/t/$tenant/quarantine", "page.quarantine"],
  ["/t/$tenant/incidents", "page.incidents"],
  ["/t/$tenant/series", "page.series"],
  ["/t/$tenant/log", "page.log"],
] as const satisfies readonly (readonly [string, Key])[];

export function TenantLayout() {
  const { t } = useTexts();
  const { tenant } = useParams({ from: "/user/t/$tenant" });
  const session = useQuery(sessionQuery);
  const known = session.data?.tenants.some((each) => each.tenant === tenant);
  return (
    <>
      <nav className="pages" aria-label={t("pages")}>
        {PAGES.map(([to, key]) => (
          <Link key={to} to={to} params={{ tenant }} activeOptions={{ exact: to === "/t/$tenant", includeSearch: false }}>
            {t(key)}
          </Link>
        ))}
        {known && <Verdict tenant={tenant} />}
      </nav>
      <main id="main" tabIndex={-1}>
        {session.data && !known ? <p>{t("problem.no-such-tenant")}</p> : <Outlet />}
      </main>
    </>
  );
}

/** In a word, on every page: is it all there? */
function Verdict({ tenant }: { tenant: string }) {
  const { t } = useTexts();
  const now = useNow();
  const balance = useQuery(balanceQuery(tenant, 24, now));
  const verdict = verdictOf(balance.data, balance.isError, now);
  return (
    <Link to="/t/$tenant/balance" params={{ tenant }} className="verdict-link" title={t(verdict.words)}>
      <Badge tone={verdict.tone}>{t(verdict.word)}</Badge>
    </Link>
  );
}
