/** /t/{tenant}: is all well, and every series with its value as it comes. */
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useDeferredValue, useEffect, useMemo, useState } from "react";

import { balanceQuery, projectsQuery, seriesQuery } from "../api/queries";
import { formatCount, formatShare } from "../format/number";
import { formatDuration } from "../format/time";
import { useLive, useLiveFeed } from "../live/useLive";
import { Button, Loaded, Nothing, ProblemNote } from "../parts/controls";
import { ConnectionNote } from "../parts/ConnectionNote";
import { PageHead, usePageTitle } from "../parts/Layout";
import { SeriesTable } from "../parts/SeriesTable";
import { useNow } from "../parts/useNow";
import { missingOf, totalsOf, verdictOf } from "../parts/verdict";
import { useTexts } from "../texts";

export function LivePage() {
  const { t } = useTexts();
  usePageTitle(t("page.live"));
  const { tenant } = useParams({ from: "/user/t/$tenant/" });
  const search = useSearch({ from: "/user/t/$tenant/" });
  const navigate = useNavigate({ from: "/t/$tenant/" });
  const projects = useQuery(projectsQuery(tenant));
  const [typed, setTyped] = useState(search.search ?? "");
  const wanted = useDeferredValue(typed.trim());
  useEffect(() => {
    const timer = setTimeout(() => {
      if ((search.search ?? "") !== wanted) void navigate({ search: { ...search, ...(wanted ? { search: wanted } : { search: undefined }) } as typeof search, replace: true });
    }, 250);
    return () => clearTimeout(timer);
  }, [wanted, search, navigate]);
  useLiveFeed({ tenant, ...(search.project ? { project: search.project } : {}) });
  const live = useLive();
  const series = useInfiniteQuery(seriesQuery(tenant, { project: search.project, search: search.search }));
  const rows = useMemo(() => series.data?.pages.flatMap((page) => page.series) ?? [], [series.data]);
  const total = projects.data?.reduce((sum, project) => sum + (search.project && project.project !== search.project ? 0 : project.series), 0);

  return (
    <>
      <PageHead title={t("page.live")}>
        <ConnectionNote health={live.health} />
      </PageHead>
      <AtAGlance tenant={tenant} />
      <div className="toolbar">
        <label className="inline">
          <span>{t("project")}</span>
          <select
            value={search.project ?? ""}
            onChange={(event) => void navigate({ search: (event.target.value ? { ...search, project: event.target.value } : { ...(search.search ? { search: search.search } : {}) }) as typeof search })}
          >
            <option value="">{t("live.all-projects")}</option>
            {projects.data?.map((project) => (
              <option key={project.project} value={project.project}>
                {project.name && project.name !== project.project ? `${project.name} (${project.project})` : project.project}
              </option>
            ))}
          </select>
        </label>
        <label className="inline grow">
          <span>{t("search")}</span>
          <input type="search" value={typed} placeholder={t("live.search-hint")} onChange={(event) => setTyped(event.target.value)} />
        </label>
        <Button aria-pressed={live.paused} onClick={() => live.pause(!live.paused)}>
          {live.paused ? t("live.go-on") : t("live.pause")}
        </Button>
      </div>
      <ProblemNote error={projects.error} retry={() => void projects.refetch()} />
      <Loaded of={series}>
        {() =>
          rows.length === 0 ? (
            <Nothing>{search.search ? t("live.none-found") : t("live.no-series")}</Nothing>
          ) : (
            <SeriesTable tenant={tenant} rows={rows} total={search.search || series.hasNextPage === false ? undefined : total} live={live} more={series} />
          )
        }
      </Loaded>
    </>
  );
}

/** The first look: one sentence, then what it rests on. */
function AtAGlance({ tenant }: { tenant: string }) {
  const { t, language } = useTexts();
  const now = useNow();
  const balance = useQuery(balanceQuery(tenant, 24, now));
  const verdict = verdictOf(balance.data, balance.isError, now);
  const totals = balance.data ? totalsOf(balance.data.hours) : undefined;
  const missing = balance.data ? missingOf(balance.data) : undefined;
  const share = totals && totals.received ? formatShare(totals.stored / totals.received, language) : undefined;
  return (
    <section className={`glance ${verdict.tone}`} aria-label={t("glance")}>
      <p className="glance-verdict">
        <strong>{t(verdict.word)}</strong>
        <span>{t(verdict.words)}</span>
      </p>
      <dl>
        <Figure label={t("glance.stored")} value={formatCount(totals?.stored, language)} note={share ? t("glance.of-received", { share }) : t("glance.24h")} />
        <Figure
          label={t("glance.late")}
          value={balance.data?.freshness_seconds == null ? "–" : formatDuration(balance.data.freshness_seconds, language)}
          note={t("glance.lag", { count: formatCount(balance.data?.lag, language) })}
        />
        <Figure label={t("glance.missing")} value={formatCount(missing, language)} note={t("glance.gaps", { count: formatCount(balance.data?.gaps.length, language) })} tone={missing ? "bad" : undefined} />
        <Figure label={t("glance.quarantined")} value={formatCount(totals?.quarantined, language)} note={t("glance.24h")} />
        <Figure label={t("glance.incidents")} value={formatCount(balance.data?.incidents_open, language)} note={t("glance.now")} tone={balance.data?.incidents_open ? "warn" : undefined} />
      </dl>
    </section>
  );
}

function Figure({ label, value, note, tone }: { label: string; value: string; note: string; tone?: "bad" | "warn" | undefined }) {
  return (
    <div className={`figure ${tone ?? ""}`}>
      <dt>{label}</dt>
      <dd>
        <span className="figure-value">{value}</span>
        <span className="figure-note">{note}</span>
      </dd>
    </div>
  );
}
