/** /t/{tenant}/series: what people say of a series — display name, unit, valid range, description — and who said it. */
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useEffect, useState, type FormEvent } from "react";

import { answerOf, api } from "../api/client";
import { may, type Series } from "../api/model";
import { ApiProblem } from "../api/problem";
import { infoChangesQuery, seriesQuery, sessionQuery, useWrite } from "../api/queries";
import { formatValue, parseNumber } from "../format/number";
import { visible } from "../format/visible";
import { ActionProgress } from "../parts/ActionProgress";
import { Button, Dialog, Field, Loaded, More, Nothing, ProblemNote, Scroller } from "../parts/controls";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Name, Time } from "../parts/text";
import { useTexts } from "../texts";

export function SeriesPage() {
  const { t, language } = useTexts();
  usePageTitle(t("page.series"));
  const { tenant } = useParams({ from: "/user/t/$tenant/series" });
  const search = useSearch({ from: "/user/t/$tenant/series" });
  const navigate = useNavigate({ from: "/t/$tenant/series" });
  const [typed, setTyped] = useState(search.search ?? "");
  useEffect(() => {
    const timer = setTimeout(() => void navigate({ search: typed.trim() ? { search: typed.trim() } : {}, replace: true }), 250);
    return () => clearTimeout(timer);
  }, [typed, navigate]);
  const series = useInfiniteQuery(seriesQuery(tenant, { search: search.search }));
  const session = useQuery(sessionQuery);
  const operator = may(session.data?.tenants.find((each) => each.tenant === tenant)?.role, "operator");
  const [chosen, setChosen] = useState<Series | null>(null);
  return (
    <>
      <PageHead title={t("page.series")} />
      <p className="lead">{t("series.lead")} <code>iot series import|export</code></p>
      <div className="toolbar">
        <label className="inline grow">
          <span>{t("search")}</span>
          <input type="search" value={typed} placeholder={t("live.search-hint")} onChange={(event) => setTyped(event.target.value)} />
        </label>
      </div>
      <Loaded of={series}>
        {({ pages }) => {
          const found = pages.flatMap((page) => page.series);
          if (found.length === 0) return <Nothing>{t("live.none-found")}</Nothing>;
          return (
            <Scroller label={t("page.series")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("live.column.device")}</th><th scope="col">{t("series.metric")}</th><th scope="col">{t("series.display_name")}</th>
                    <th scope="col">{t("series.unit")}</th><th scope="col">{t("series.range")}</th><th scope="col">{t("series.description")}</th>
                    <th scope="col"><span className="unseen">{t("edit")}</span></th>
                  </tr>
                </thead>
                <tbody>
                  {found.map((each) => (
                    <tr key={each.key}>
                      <td><Name text={each.device} /><br /><small className="muted"><Name text={each.project} /></small></td>
                      <td><Name text={each.metric} /></td>
                      <td><Name text={each.displayName} /></td>
                      <td><Name text={each.unit} /></td>
                      <td className="nowrap">{each.validMin === null && each.validMax === null ? "" : `${formatValue(each.validMin, null, language)} … ${formatValue(each.validMax, null, language)}`}</td>
                      <td className="long"><Name text={each.description} /></td>
                      <td><Button aria-label={`${t(operator ? "edit" : "series.changes")}: ${visible(each.device)} ${visible(each.metric)}`} onClick={() => setChosen(each)}>{t(operator ? "edit" : "series.changes")}</Button></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroller>
          );
        }}
      </Loaded>
      <More of={series} />
      {chosen && <InfoDialog tenant={tenant} series={chosen} operator={operator} onClose={() => setChosen(null)} />}
    </>
  );
}

function InfoDialog({ tenant, series, operator, onClose }: { tenant: string; series: Series; operator: boolean; onClose: () => void }) {
  const { project, device, metric } = series;
  return (
    <Dialog wide title={<><Name text={device} /> · <Name text={metric} /></>} onClose={onClose}>
      {operator && <InfoForm tenant={tenant} series={series} />}
      <Changes tenant={tenant} of={{ project, device, metric }} />
    </Dialog>
  );
}

const written = (number: number | null) => (number === null ? "" : String(number));

function InfoForm({ tenant, series }: { tenant: string; series: Series }) {
  const { t } = useTexts();
  const [typed, setTyped] = useState({
    display_name: series.displayName, unit: series.unit, valid_min: written(series.validMin), valid_max: written(series.validMax), description: series.description,
  });
  const [action, setAction] = useState<string | null>(null);
  const [wrongs, setWrongs] = useState<Partial<Record<keyof typeof typed, string>>>({});
  const change = useWrite(async (range: { valid_min: number | null; valid_max: number | null }) => {
    const body = { display_name: typed.display_name.trim(), unit: typed.unit.trim(), description: typed.description.trim(), ...range };
    const params = { path: { tenant }, query: { project: series.project, device: series.device, metric: series.metric } };
    setAction((await answerOf(api.PUT("/api/v1/tenants/{tenant}/series-info", { params, body }))).action_id);
  }, [tenant, "info-changes"]);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const [low, high] = [parseNumber(typed.valid_min), parseNumber(typed.valid_max)];
    const found: typeof wrongs = {};
    if (low === undefined) found.valid_min = t("series.no-number");
    if (high === undefined) found.valid_max = t("series.no-number");
    if (low != null && high != null && low > high) found.valid_max = t("series.below-min");
    setWrongs(found);
    if (low !== undefined && high !== undefined && Object.keys(found).length === 0) change.mutate({ valid_min: low, valid_max: high });
  };
  const field = (name: keyof typeof typed) => (
    <Field key={name} label={t(`series.${name}`)} wrong={wrongs[name] ?? (change.error instanceof ApiProblem ? change.error.field(name) : undefined)}>
      {(ids) => <input {...ids} value={typed[name]} inputMode={name.startsWith("valid") ? "decimal" : "text"} onChange={(event) => { setTyped({ ...typed, [name]: event.target.value }); setWrongs({}); }} />}
    </Field>
  );
  if (action) return <ActionProgress tenant={tenant} action={action} />;
  return (
    <form onSubmit={submit}>
      <div className="form-grid">{(["display_name", "unit", "valid_min", "valid_max"] as const).map(field)}</div>
      <Field label={t("series.description")}>
        {(ids) => <textarea {...ids} rows={2} maxLength={2000} value={typed.description} onChange={(event) => setTyped({ ...typed, description: event.target.value })} />}
      </Field>
      <ProblemNote error={change.error} />
      <div className="form-actions"><Button type="submit" kind="primary" disabled={change.isPending}>{t("save")}</Button></div>
    </form>
  );
}

function Changes({ tenant, of }: { tenant: string; of: { project: string; device: string; metric: string } }) {
  const { t, language } = useTexts();
  const changes = useQuery(infoChangesQuery(tenant, of));
  return (
    <section>
      <h3>{t("series.changes")}</h3>
      <Loaded of={changes}>
        {(found) =>
          found.length === 0 ? (
            <Nothing>{t("series.no-changes")}</Nothing>
          ) : (
            <Scroller label={t("series.changes")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("time")}</th><th scope="col">{t("log.who")}</th><th scope="col">{t("series.display_name")}</th>
                    <th scope="col">{t("series.unit")}</th><th scope="col">{t("series.range")}</th><th scope="col">{t("series.description")}</th>
                  </tr>
                </thead>
                <tbody>
                  {found.map((change) => (
                    <tr key={change.changed_at}>
                      <td><Time at={change.changed_at} /></td><td><Name text={change.changed_by} /></td><td><Name text={change.display_name} /></td>
                      <td><Name text={change.unit} /></td>
                      <td className="nowrap">{formatValue(change.valid_min, null, language)} … {formatValue(change.valid_max, null, language)}</td>
                      <td className="long"><Name text={change.description} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroller>
          )
        }
      </Loaded>
    </section>
  );
}
