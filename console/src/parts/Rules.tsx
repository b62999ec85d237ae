/** Quality rules: what counts for this tenant, and changing it. */
import { useQuery } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";

import { answerOf, api } from "../api/client";
import { ApiProblem } from "../api/problem";
import type { Rule, RuleChange } from "../api/model";
import { rulesQuery, useWrite } from "../api/queries";
import { useTexts, type Key } from "../texts";
import { ActionProgress } from "./ActionProgress";
import { Badge, Button, Dialog, Field, Loaded, ProblemNote, Scroller } from "./controls";
import { Name, Words } from "./text";

export function Rules({ tenant, operator }: { tenant: string; operator: boolean }) {
  const { t, maybe } = useTexts();
  const rules = useQuery(rulesQuery(tenant));
  const [editing, setEditing] = useState<Rule | null>(null);
  return (
    <>
      <p className="lead">{t("rules.lead")}</p>
      <Loaded of={rules}>
        {(found) => (
          <Scroller label={t("rules")}>
            <table className="rows">
              <thead>
                <tr>
                  <th scope="col">{t("rules.rule")}</th><th scope="col">{t("rules.for")}</th><th scope="col">{t("incidents.severity")}</th>
                  <th scope="col">{t("rules.on")}</th><th scope="col">{t("rules.parameters")}</th>
                  {operator && <th scope="col"><span className="unseen">{t("edit")}</span></th>}
                </tr>
              </thead>
              <tbody>
                {found.map((rule) => (
                  <tr key={[rule.rule, rule.project, rule.device, rule.metric, rule.own].join("\u0000")}>
                    <td>
                      <strong>{maybe(`rule.${rule.rule}`, rule.rule)}</strong>
                      <br />
                      <small className="muted"><Words text={rule.description} /></small>
                    </td>
                    <td>
                      {rule.own ? <Badge tone="plain">{t("rules.own")}</Badge> : <span className="muted">{t("rules.default")}</span>}
                      {[rule.project, rule.device, rule.metric].filter(Boolean).map((name) => <div key={name}><Name text={name} /></div>)}
                    </td>
                    <td>{maybe(`severity.${rule.severity}`, rule.severity)}</td>
                    <td>{t(rule.enabled ? "yes" : "no")}</td>
                    <td className="long"><code>{Object.entries(rule.parameters).map(([name, value]) => `${name} = ${typeof value === "object" ? JSON.stringify(value) : String(value)}`).join("\n")}</code></td>
                    {operator && <td><Button aria-label={`${t("edit")}: ${maybe(`rule.${rule.rule}`, rule.rule)}`} onClick={() => setEditing(rule)}>{t("edit")}</Button></td>}
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroller>
        )}
      </Loaded>
      {editing && <RuleForm tenant={tenant} rule={editing} onClose={() => setEditing(null)} />}
    </>
  );
}

type Value = NonNullable<RuleChange["parameters"]>[string];

/** A parameter as typed: a JSON value where it is one (numbers, true, null), else text. */
export function parameterOf(typed: string): Value {
  try {
    const value = JSON.parse(typed) as unknown;
    return value === null || ["number", "boolean", "string"].includes(typeof value) ? (value as Value) : typed;
  } catch {
    return typed;
  }
}

function RuleForm({ tenant, rule, onClose }: { tenant: string; rule: Rule; onClose: () => void }) {
  const { t, maybe } = useTexts();
  const [scope, setScope] = useState({ project: rule.project, device: rule.device, metric: rule.metric });
  const [severity, setSeverity] = useState(rule.severity === "ERROR" ? ("ERROR" as const) : ("WARN" as const));
  const [enabled, setEnabled] = useState(rule.enabled);
  const [parameters, setParameters] = useState(() =>
    Object.fromEntries(Object.entries(rule.parameters).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])),
  );
  const [action, setAction] = useState<string | null>(null);
  const change = useWrite(async () => {
    const typed = Object.fromEntries(Object.entries(parameters).filter(([, value]) => value.trim()).map(([name, value]) => [name, parameterOf(value)]));
    const body = { ...scope, severity, enabled, parameters: typed };
    const path = { tenant, rule: rule.rule };
    setAction((await answerOf(api.PUT("/api/v1/tenants/{tenant}/rules/{rule}", { params: { path }, body }))).action_id);
  }, [tenant, "rules"]);
  const wrong = (name: string) => (change.error instanceof ApiProblem ? change.error.field(name) : undefined);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    change.mutate(undefined);
  };
  return (
    <Dialog title={maybe(`rule.${rule.rule}`, rule.rule)} onClose={onClose}>
      {action ? (
        <ActionProgress tenant={tenant} action={action} />
      ) : (
        <form onSubmit={submit}>
          <p className="note"><Words text={rule.description} /></p>
          <div className="form-grid">
            {(["project", "device", "metric"] as const).map((name) => (
              <Field key={name} label={t(`rules.${name}` as Key)} wrong={wrong(name)}>
                {(ids) => <input {...ids} value={scope[name]} placeholder={t("rules.all")} spellCheck={false} onChange={(event) => setScope({ ...scope, [name]: event.target.value.trim() })} />}
              </Field>
            ))}
            <Field label={t("incidents.severity")} wrong={wrong("severity")}>
              {(ids) => (
                <select {...ids} value={severity} onChange={(event) => setSeverity(event.target.value as "WARN" | "ERROR")}>
                  <option value="WARN">{t("severity.WARN")}</option>
                  <option value="ERROR">{t("severity.ERROR")}</option>
                </select>
              )}
            </Field>
            {Object.entries(parameters).map(([name, value]) => (
              <Field key={name} label={name} wrong={wrong(name)}>
                {(ids) => <input {...ids} value={value} spellCheck={false} onChange={(event) => setParameters({ ...parameters, [name]: event.target.value })} />}
              </Field>
            ))}
          </div>
          <label className="check">
            <input type="checkbox" checked={enabled} onChange={(event) => setEnabled(event.target.checked)} /> {t("rules.enabled")}
          </label>
          <ProblemNote error={change.error} />
          <div className="form-actions"><Button type="submit" kind="primary" disabled={change.isPending}>{t("save")}</Button></div>
        </form>
      )}
    </Dialog>
  );
}
