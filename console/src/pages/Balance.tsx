/** /t/{tenant}/balance: is it all there? Received = stored + duplicate + quarantined + in flight, by hour; and where not, why. */
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";

import type { Balance, Gap } from "../api/model";
import { balanceQuery } from "../api/queries";
import { formatCount, NOTHING } from "../format/number";
import { formatDuration, milliseconds } from "../format/time";
import { Badge, Banner, Button, Loaded, Nothing, Scroller, Segments } from "../parts/controls";
import { HourBars } from "../parts/HourBars";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Age, Time, Topic, Words } from "../parts/text";
import { TraceDialog } from "../parts/TraceDialog";
import { useNow } from "../parts/useNow";
import { filledHours, missingOf, totalsOf, verdictOf } from "../parts/verdict";
import { useTexts } from "../texts";

const HOURS = ["24", "72", "168"] as const;

export function BalancePage() {
  const { t } = useTexts();
  usePageTitle(t("page.balance"));
  const { tenant } = useParams({ from: "/user/t/$tenant/balance" });
  const search = useSearch({ from: "/user/t/$tenant/balance" });
  const navigate = useNavigate({ from: "/t/$tenant/balance" });
  const hours = HOURS.find((each) => each === search.hours) ?? "24";
  const balance = useQuery(balanceQuery(tenant, Number(hours), useNow()));
  return (
    <>
      <PageHead title={t("page.balance")}>
        <Segments label={t("range")} value={hours} options={HOURS.map((value) => ({ value, text: t(`balance.hours.${value}`) }))} onChange={(value) => void navigate({ search: { hours: value } })} />
      </PageHead>
      <Loaded of={balance}>{(data) => <Found tenant={tenant} balance={data} hours={Number(hours)} failed={balance.isError} />}</Loaded>
    </>
  );
}

function Found({ tenant, balance, hours, failed }: { tenant: string; balance: Balance; hours: number; failed: boolean }) {
  const { t, language } = useTexts();
  const now = useNow();
  const verdict = verdictOf(balance, failed, now);
  const totals = totalsOf(balance.hours);
  const missing = missingOf(balance);
  const terms = [
    ["received", totals.received, ""], ["stored", totals.stored, "="], ["duplicate", totals.duplicate, "+"], ["quarantined", totals.quarantined, "+"],
    ["missing", missing, "+"],
  ] as const;
  return (
    <>
      <Banner tone={verdict.tone} title={t(verdict.word)}>
        <p>{t(verdict.words)}</p>
        {balance.words.length > 0 && (
          <ul className="audit-words">
            {balance.words.map((sentence, at) => (
              <li key={at}><Words text={sentence} /></li>
            ))}
          </ul>
        )}
        <p className="muted">{t("balance.checked")} <Age at={balance.checked_at} /></p>
      </Banner>
      <dl className="equation">
        {terms.map(([name, count, sign]) => (
          <div key={name} className={`term ${name} ${name === "missing" && count ? "bad" : ""}`} data-sign={sign}>
            <dt>{t(`balance.${name}`)}</dt>
            <dd>{formatCount(count, language)}</dd>
          </div>
        ))}
      </dl>
      <dl className="facts">
        <div><dt>{t("balance.in-flight")}</dt><dd>{formatCount(balance.in_flight, language)} <small>{t("balance.platform")}</small></dd></div>
        <div><dt>{t("balance.lag")}</dt><dd>{formatCount(balance.lag, language)} <small>{t("balance.platform")}</small></dd></div>
        <div><dt>{t("balance.freshness")}</dt><dd>{balance.freshness_seconds === null ? "–" : formatDuration(balance.freshness_seconds, language)}</dd></div>
        <div><dt>{t("glance.incidents")}</dt><dd><Link to="/t/$tenant/incidents" params={{ tenant }}>{formatCount(balance.incidents_open, language)}</Link></dd></div>
      </dl>
      <Gaps tenant={tenant} gaps={balance.gaps} />
      <Hours hours={balance.hours} shown={filledHours(balance.hours, hours, now)} />
      <Runs runs={balance.runs} />
    </>
  );
}

function Gaps({ tenant, gaps }: { tenant: string; gaps: readonly Gap[] }) {
  const { t, language } = useTexts();
  const [traced, setTraced] = useState<Gap | null>(null);
  return (
    <section>
      <h2>{t("balance.gaps")}</h2>
      {gaps.length === 0 ? (
        <Nothing>{t("balance.no-gaps")}</Nothing>
      ) : (
        <Scroller label={t("balance.gaps")}>
          <table className="rows">
            <thead>
              <tr>
                <th scope="col">{t("topic")}</th><th scope="col">{t("partition")}</th><th scope="col">{t("balance.offsets")}</th>
                <th scope="col" className="number">{t("balance.missing")}</th><th scope="col">{t("balance.words")}</th>
                <th scope="col"><span className="unseen">{t("trace")}</span></th>
              </tr>
            </thead>
            <tbody>
              {gaps.map((gap) => (
                <tr key={`${gap.partition} ${gap.from_offset}`}>
                  <td className="long"><Topic text={gap.topic || NOTHING} /></td>
                  <td className="number">{gap.partition}</td>
                  <td className="nowrap">{gap.from_offset} – {gap.to_offset}</td>
                  <td className="number">{formatCount(gap.count, language)}</td>
                  <td><Words text={gap.words} /></td>
                  <td><Button onClick={() => setTraced(gap)}>{t("trace")}</Button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroller>
      )}
      {traced && <TraceDialog tenant={tenant} partition={traced.partition} offset={traced.from_offset} onClose={() => setTraced(null)} />}
    </section>
  );
}

function Hours({ hours, shown }: { hours: Balance["hours"]; shown: Balance["hours"] }) {
  const { t, language } = useTexts();
  const newest = [...hours.time.keys()].reverse();
  if (newest.length === 0) return <Nothing>{t("balance.no-hours")}</Nothing>;
  return (
    <section>
      <h2>{t("balance.by-hour")}</h2>
      <HourBars hours={shown} />
      <Scroller label={t("balance.by-hour")}>
        <table className="hours">
          <thead>
            <tr>
              <th scope="col">{t("balance.hour")}</th>
              {(["received", "stored", "duplicate", "quarantined", "difference"] as const).map((column) => (
                <th key={column} scope="col" className="number">{t(`balance.${column}`)}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {newest.map((at) => {
              const [received, stored, duplicate, quarantined] = [hours.received, hours.stored, hours.duplicate, hours.quarantined].map((column) => column[at] ?? 0);
              const difference = received! - stored! - duplicate! - quarantined!;
              return (
                <tr key={hours.time[at]} className={difference ? "bad" : ""}>
                  <th scope="row"><Time at={hours.time[at]!} precision="minute" /></th>
                  {[received, stored, duplicate, quarantined].map((count, index) => (
                    <td key={index} className="number">{formatCount(count, language)}</td>
                  ))}
                  <td className="number">{difference ? <strong>{formatCount(difference, language)}</strong> : "0 ✓"}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scroller>
    </section>
  );
}

function Runs({ runs }: { runs: Balance["runs"] }) {
  const { t, maybe, language } = useTexts();
  return (
    <section>
      <h2>{t("balance.runs")}</h2>
      {runs.length === 0 ? (
        <Nothing>{t("balance.no-runs")}</Nothing>
      ) : (
        <Scroller label={t("balance.runs")}>
          <table className="rows">
            <thead>
              <tr>
                <th scope="col">{t("balance.run")}</th><th scope="col">{t("state")}</th><th scope="col">{t("balance.started")}</th>
                <th scope="col" className="number">{t("balance.took")}</th><th scope="col" className="number">{t("balance.batches")}</th>
              </tr>
            </thead>
            <tbody>
              {runs.map((run) => {
                const [from, to] = [milliseconds(run.started_at), milliseconds(run.ended_at)];
                return (
                  <tr key={run.run_id}>
                    <td className="nowrap">{run.url ? <a href={run.url} target="_blank" rel="noreferrer" aria-label={t("balance.run-in-dagster", { run: run.run_id.slice(0, 8) })}>{run.run_id.slice(0, 8)} ↗</a> : run.run_id.slice(0, 8)}</td>
                    <td><Badge tone={run.status === "working" ? "good" : "plain"}>{maybe(`run.${run.status}`, run.status)}</Badge></td>
                    <td><Time at={run.started_at} /></td>
                    <td className="number">{from !== null && to !== null ? formatDuration((to - from) / 1000, language) : "–"}</td>
                    <td className="number">{formatCount(run.batches, language)}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </Scroller>
      )}
    </section>
  );
}
