/** /t/{tenant}/incidents: what the quality rules found, and the rules. */
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState, type FormEvent } from "react";

import { may, type Incident } from "../api/model";
import { askFor, incidentsQuery, sessionQuery, useWrite } from "../api/queries";
import { formatCount } from "../format/number";
import { fromInput, iso, milliseconds, toInput } from "../format/time";
import { ActionProgress } from "../parts/ActionProgress";
import { Badge, Button, Dialog, Field, Loaded, More, Nothing, ProblemNote, Scroller, Segments } from "../parts/controls";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Rules } from "../parts/Rules";
import { Age, Name, Time, Words } from "../parts/text";
import { useNow } from "../parts/useNow";
import { useTexts } from "../texts";

export function IncidentsPage() {
  const { t } = useTexts();
  usePageTitle(t("page.incidents"));
  const { tenant } = useParams({ from: "/user/t/$tenant/incidents" });
  const search = useSearch({ from: "/user/t/$tenant/incidents" });
  const navigate = useNavigate({ from: "/t/$tenant/incidents" });
  const session = useQuery(sessionQuery);
  const operator = may(session.data?.tenants.find((each) => each.tenant === tenant)?.role, "operator");
  const view = search.rules ? "rules" : search.state === "all" ? "all" : "open";
  return (
    <>
      <PageHead title={t("page.incidents")}>
        <Segments
          label={t("incidents.view")}
          value={view}
          options={[{ value: "open", text: t("incidents.open") }, { value: "all", text: t("incidents.all") }, { value: "rules", text: t("rules") }]}
          onChange={(value) => void navigate({ search: value === "rules" ? { rules: "1" } : value === "all" ? { state: "all" } : {} })}
        />
      </PageHead>
      {view === "rules" ? <Rules tenant={tenant} operator={operator} /> : <List tenant={tenant} state={view} operator={operator} />}
    </>
  );
}

function List({ tenant, state, operator }: { tenant: string; state: "open" | "all"; operator: boolean }) {
  const { t, maybe, language } = useTexts();
  const incidents = useInfiniteQuery(incidentsQuery(tenant, state));
  const [silencing, setSilencing] = useState<Incident | null>(null);
  const [action, setAction] = useState<string | null>(null);
  const now = useNow();
  const acknowledge = useWrite(async (incident: Incident) => {
    setAction(await askFor(tenant, { kind: "acknowledge-incident", arguments: { incident_id: incident.incident_id } }));
  }, [tenant, "incidents"]);
  return (
    <>
      <ProblemNote error={acknowledge.error} />
      {action && <ActionProgress tenant={tenant} action={action} onDone={() => setAction(null)} />}
      <Loaded of={incidents}>
        {({ pages }) => {
          const found = pages.flatMap((page) => page.incidents);
          if (found.length === 0) return <Nothing>{t(state === "open" ? "incidents.none-open" : "incidents.none")}</Nothing>;
          return (
            <Scroller label={t("page.incidents")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("incidents.severity")}</th><th scope="col">{t("incidents.what")}</th><th scope="col">{t("incidents.where")}</th>
                    <th scope="col">{t("incidents.opened")}</th><th scope="col">{t("incidents.closed")}</th><th scope="col" className="number">{t("incidents.flaps")}</th>
                    <th scope="col">{t("state")}</th>{operator && <th scope="col"><span className="unseen">{t("incidents.do")}</span></th>}
                  </tr>
                </thead>
                <tbody>
                  {found.map((incident) => {
                    const silenced = (milliseconds(incident.silenced_until) ?? 0) > now;
                    return (
                      <tr key={incident.incident_id}>
                        <td><Badge tone={incident.severity === "ERROR" ? "bad" : "warn"}>{maybe(`severity.${incident.severity}`, incident.severity)}</Badge></td>
                        <td>
                          <strong>{maybe(`rule.${incident.rule}`, incident.rule)}</strong>
                          <br />
                          <Words text={incident.message} />
                        </td>
                        <td><Where tenant={tenant} incident={incident} /></td>
                        <td><Time at={incident.opened_at} /><br /><small className="muted"><Age at={incident.opened_at} /></small></td>
                        <td>{incident.closed_at ? <Time at={incident.closed_at} /> : t("incidents.still")}</td>
                        <td className="number">{formatCount(incident.flaps, language)}</td>
                        <td>
                          {silenced && (
                            <>
                              <Badge tone="plain">{t("incidents.silenced")}</Badge> <small>{t("incidents.until")} <Time at={incident.silenced_until} precision="minute" /> <Name text={incident.silence_reason} /></small>
                            </>
                          )}{" "}
                          {incident.acknowledged_by && <small>{t("incidents.acknowledged-by")} <Name text={incident.acknowledged_by} /></small>}
                        </td>
                        {operator && (
                          <td className="nowrap">
                            {!incident.acknowledged_by && !incident.closed_at && <Button disabled={acknowledge.isPending} onClick={() => acknowledge.mutate(incident)}>{t("incidents.acknowledge")}</Button>}{" "}
                            {!incident.closed_at && <Button onClick={() => setSilencing(incident)}>{t("incidents.silence")}</Button>}
                          </td>
                        )}
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            </Scroller>
          );
        }}
      </Loaded>
      <More of={incidents} />
      {silencing && <Silence tenant={tenant} incident={silencing} onClose={() => setSilencing(null)} />}
    </>
  );
}

function Where({ tenant, incident }: { tenant: string; incident: Incident }) {
  const { project, device, metric } = incident;
  if (!project) return null;
  if (!device) return <Link to="/t/$tenant" params={{ tenant }} search={{ project }}><Name text={project} /></Link>;
  return (
    <>
      <Link to="/t/$tenant/p/$project/d/$device" params={{ tenant, project, device }} search={metric ? { metric } : {}}><Name text={device} /></Link>
      <br />
      <small className="muted"><Name text={project} />{metric && <> · <Name text={metric} /></>}</small>
    </>
  );
}

function Silence({ tenant, incident, onClose }: { tenant: string; incident: Incident; onClose: () => void }) {
  const { t, maybe } = useTexts();
  const [until, setUntil] = useState(() => toInput(Date.now() + 86400_000).slice(0, 16));
  const [reason, setReason] = useState("");
  const [action, setAction] = useState<string | null>(null);
  const [late, setLate] = useState(false);
  const silence = useWrite(async (end: number) => {
    const { incident_id } = incident;
    setAction(await askFor(tenant, { kind: "silence-incident", arguments: { incident_id, until: iso(end), reason: reason.trim() } }));
  }, [tenant, "incidents"]);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const end = fromInput(until);
    setLate(end === null || end <= Date.now());
    if (end !== null && end > Date.now()) silence.mutate(end);
  };
  return (
    <Dialog title={t("incidents.silence-title", { rule: maybe(`rule.${incident.rule}`, incident.rule) })} onClose={onClose}>
      {action ? (
        <ActionProgress tenant={tenant} action={action} />
      ) : (
        <form onSubmit={submit}>
          <p className="note">{t("incidents.silence-words")}</p>
          <Field label={t("incidents.silence-until")} wrong={late ? t("incidents.in-future") : undefined}>
            {(ids) => <input {...ids} type="datetime-local" value={until} onChange={(event) => setUntil(event.target.value)} required />}
          </Field>
          <Field label={t("incidents.reason")}>
            {(ids) => <textarea {...ids} value={reason} maxLength={500} rows={3} onChange={(event) => setReason(event.target.value)} required />}
          </Field>
          <ProblemNote error={silence.error} />
          <div className="form-actions"><Button type="submit" kind="primary" disabled={silence.isPending}>{t("incidents.silence")}</Button></div>
        </form>
      )}
    </Dialog>
  );
}
