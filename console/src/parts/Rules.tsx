/** Quality rules: what counts for this tenant, and changing it. */
import { useQuery } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";

import { answerOf, api } from "../api/client";
import { ApiProblem } from "../api/problem";
import type { Rule, RuleChange } from "../api/model";
import { rulesQuery, useWrite } from "../api/queries";
import { parseNumber } from "../format/number";
import { useTexts } from "../texts";
import { ActionProgress } from "./ActionProgress";
import { Badge, Button, Dialog, Field, Loaded, ProblemNote, Scroller } from "./controls";
import { Name, Words } from "./text";

export function Rules({ tenant, operator }: { tenant: string; operator: boolean }) {
  const { t, maybe } = useTexts();
  const rules = useQuery(rulesQuery(tenant));
  const [editing, setEditing] = useState<Rule | null>(null);
  const inherited = <span className="muted">{t("rules.inherited")}</span>;
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
                {found.map((rule) => {
                  const name = maybe(`rule.${rule.rule}`, rule.rule);
                  return (
                    <tr key={[rule.rule, rule.own, rule.project, rule.metric].join("\u0000")}>
                      <td>
                        <strong>{name}</strong>
                        {rule.description && <><br /><small className="muted"><Words text={maybe(`about.${rule.rule}`, rule.description)} /></small></>}
                      </td>
                      <td>
                        {rule.own ? <Badge tone="plain">{t("rules.own")}</Badge> : <span className="muted">{t("rules.default")}</span>}
                        {[rule.project, rule.metric].filter(Boolean).map((of) => <div key={of}><Name text={of} /></div>)}
                      </td>
                      <td>{rule.severity === null ? inherited : maybe(`severity.${rule.severity}`, rule.severity)}</td>
                      <td>{rule.enabled === null ? inherited : t(rule.enabled ? "yes" : "no")}</td>
                      <td className="long"><span className="settings">{settingsOf(rule).map((setting) => <code key={setting}>{setting}</code>)}</span></td>
                      {operator && <td><Button aria-label={`${t("edit")}: ${name}`} onClick={() => setEditing(rule)}>{t("edit")}</Button></td>}
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </Scroller>
        )}
      </Loaded>
      {editing && <RuleForm tenant={tenant} rule={editing} onClose={() => setEditing(null)} />}
    </>
  );
}

const NUMBERS = ["threshold", "window_seconds", "clear_seconds", "hold_seconds"] as const;

/** What a rule has set, one a line. */
function settingsOf(rule: Rule): string[] {
  const set = [...NUMBERS.map((name) => [name, rule[name]] as const), ...Object.entries(rule.parameters)];
  return set.filter(([, value]) => value !== null).map(([name, value]) => `${name} = ${typeof value === "object" ? JSON.stringify(value) : String(value)}`);
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
  const [scope, setScope] = useState({ project: rule.project, metric: rule.metric });
  const [severity, setSeverity] = useState(rule.severity ?? "");
  const [enabled, setEnabled] = useState<"" | "yes" | "no">(rule.enabled === null ? "" : rule.enabled ? "yes" : "no");
  const [numbers, setNumbers] = useState(() => Object.fromEntries(NUMBERS.map((name) => [name, rule[name] === null ? "" : String(rule[name])])) as Record<(typeof NUMBERS)[number], string>);
  const [noNumber, setNoNumber] = useState<string | null>(null);
  const [parameters, setParameters] = useState(() =>
    Object.fromEntries(Object.entries(rule.parameters).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])),
  );
  const [action, setAction] = useState<string | null>(null);
  const change = useWrite(async (remove: boolean) => {
    const typed = Object.fromEntries(Object.entries(parameters).filter(([, value]) => value.trim()).map(([name, value]) => [name, parameterOf(value)]));
    const set = Object.fromEntries(NUMBERS.map((name) => [name, parseNumber(numbers[name]) ?? null]));
    const body = { ...scope, ...set, severity: severity ? (severity as "WARN" | "ERROR") : null, enabled: enabled === "" ? null : enabled === "yes", parameters: typed, remove };
    const path = { tenant, rule: rule.rule };
    setAction((await answerOf(api.PUT("/api/v1/tenants/{tenant}/rules/{rule}", { params: { path }, body }))).action_id);
  }, [tenant, "rules"]);
  const wrong = (name: string) => (change.error instanceof ApiProblem ? change.error.field(name) : undefined);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const not = NUMBERS.find((name) => parseNumber(numbers[name]) === undefined) ?? null;
    setNoNumber(not);
    if (not === null) change.mutate(false);
  };
  return (
    <Dialog title={maybe(`rule.${rule.rule}`, rule.rule)} onClose={onClose}>
      {action ? (
        <ActionProgress tenant={tenant} action={action} />
      ) : (
        <form onSubmit={submit}>
          {rule.description && <p className="note"><Words text={maybe(`about.${rule.rule}`, rule.description)} /></p>}
          <div className="form-grid">
            {(["project", "metric"] as const).map((name) => (
              <Field key={name} label={t(`rules.${name}`)} wrong={wrong(name)}>
                {(ids) => <input {...ids} value={scope[name]} placeholder={t("rules.all")} spellCheck={false} onChange={(event) => setScope({ ...scope, [name]: event.target.value.trim() })} />}
              </Field>
            ))}
            <Field label={t("incidents.severity")} wrong={wrong("severity")}>
              {(ids) => (
                <select {...ids} value={severity} onChange={(event) => setSeverity(event.target.value)}>
                  <option value="">{t("rules.inherited")}</option>
                  <option value="WARN">{t("severity.WARN")}</option>
                  <option value="ERROR">{t("severity.ERROR")}</option>
                </select>
              )}
            </Field>
            <Field label={t("rules.on")} wrong={wrong("enabled")}>
              {(ids) => (
                <select {...ids} value={enabled} onChange={(event) => setEnabled(event.target.value as "" | "yes" | "no")}>
                  <option value="">{t("rules.inherited")}</option>
                  <option value="yes">{t("yes")}</option>
                  <option value="no">{t("no")}</option>
                </select>
              )}
            </Field>
            {NUMBERS.map((name) => (
              <Field key={name} label={t(`rules.${name}`)} wrong={noNumber === name ? t("series.no-number") : wrong(name)}>
                {(ids) => <input {...ids} inputMode="decimal" value={numbers[name]} placeholder={t("rules.inherited")} onChange={(event) => { setNumbers({ ...numbers, [name]: event.target.value }); setNoNumber(null); }} />}
              </Field>
            ))}
            {Object.entries(parameters).map(([name, value]) => (
              <Field key={name} label={name} wrong={wrong(name)}>
                {(ids) => <input {...ids} value={value} spellCheck={false} onChange={(event) => setParameters({ ...parameters, [name]: event.target.value })} />}
              </Field>
            ))}
          </div>
          <ProblemNote error={change.error} />
          <div className="form-actions">
            {rule.own && <Button disabled={change.isPending} onClick={() => change.mutate(true)}>{t("rules.remove")}</Button>}
            <Button type="submit" kind="primary" disabled={change.isPending}>{t("save")}</Button>
          </div>
        </form>
      )}
    </Dialog>
  );
}
