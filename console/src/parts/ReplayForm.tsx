/** Storing quarantined messages after all: the rule corrected, tried without writing, then replayed under the user's eyes. */
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { answerOf, api } from "../api/client";
import { ApiProblem } from "../api/problem";
import { askFor, useWrite, type Span } from "../api/queries";
import { formatCount } from "../format/number";
import { useTexts, type Key } from "../texts";
import { ActionProgress } from "./ActionProgress";
import { Badge, Button, Dialog, Field, ProblemNote, Scroller } from "./controls";
import { Time, Topic, Words } from "./text";

type Of = Span & { reason?: string | undefined };

/** The settings of decoding that a dry run may try; each is what the setting of its name takes. */
const TEXT_RULES = ["topic_pattern", "default_timezone"] as const;
const LIST_RULES = ["tenant_pointers", "project_pointers", "device_pointers", "time_pointers"] as const;
type Typed = Partial<Record<(typeof TEXT_RULES)[number] | (typeof LIST_RULES)[number] | "topic_codecs", string>>;

/** What was typed as the API takes it; a SyntaxError where the codecs are no JSON. Empty fields are left out: the setting stays. */
export function ruleOf(typed: Typed): Record<string, unknown> {
  const rule: Record<string, unknown> = {};
  for (const name of TEXT_RULES) if (typed[name]?.trim()) rule[name] = typed[name].trim();
  for (const name of LIST_RULES) {
    const pointers = (typed[name] ?? "").split(/[\s,]+/).filter(Boolean);
    if (pointers.length) rule[name] = pointers;
  }
  if (typed.topic_codecs?.trim()) rule.topic_codecs = JSON.parse(typed.topic_codecs) as unknown;
  return rule;
}

export function ReplayForm({ tenant, of, onClose }: { tenant: string; of: Of; onClose: () => void }) {
  const { t, maybe, language } = useTexts();
  const [typed, setTyped] = useState<Typed>({});
  const [action, setAction] = useState<string | null>(null);
  const [noJson, setNoJson] = useState(false);
  const [keep, setKeep] = useState(false);
  const corrected = Object.values(typed).some((text) => text?.trim());
  const which = { from: of.from, to: of.to, ...(of.reason ? { reason: of.reason } : {}) };
  const dryRun = useMutation({ mutationFn: () => answerOf(api.POST("/api/v1/tenants/{tenant}/quarantine/dry-run", { params: { path: { tenant } }, body: { ...which, rule: ruleOf(typed) } })) });
  const replay = useWrite(async () => {
    setAction(await askFor(tenant, { kind: "replay", arguments: { ...which, ...(corrected ? { rule: ruleOf(typed), keep } : {}) } }));
  }, [tenant]);
  const attempt = (go: () => void) => {
    try {
      ruleOf(typed);
      setNoJson(false);
    } catch {
      setNoJson(true);
      return;
    }
    go();
  };
  const error = dryRun.error ?? replay.error;
  const field = (name: keyof Typed) => {
    const wrong = name === "topic_codecs" && noJson ? t("replay.no-json") : error instanceof ApiProblem ? error.field(name) : undefined;
    return (
      <Field key={name} label={t(`replay.${name}`)} hint={t(`replay.${name}.hint` as Key)} wrong={wrong}>
        {(ids) => <input {...ids} value={typed[name] ?? ""} spellCheck={false} onChange={(event) => { setTyped({ ...typed, [name]: event.target.value }); dryRun.reset(); }} />}
      </Field>
    );
  };
  const result = dryRun.data;
  return (
    <Dialog wide title={t("replay.title")} onClose={onClose}>
      <p>
        {t("replay.which")} <Time at={of.from} precision="minute" /> – <Time at={of.to} precision="minute" /> · {of.reason ? maybe(`reason.${of.reason}`, of.reason) : t("quarantine.all")}
      </p>
      {action === null ? (
        <form onSubmit={(event) => { event.preventDefault(); attempt(() => dryRun.mutate()); }}>
          <fieldset>
            <legend>{t("replay.rule")}</legend>
            <p className="note">{t("replay.rule.hint")}</p>
            <div className="form-grid">{([...TEXT_RULES, ...LIST_RULES, "topic_codecs"] as const).map(field)}</div>
          </fieldset>
          <ProblemNote error={error} />
          {result && (
            <div role="status" className="banner plain">
              <p>
                <Badge tone={result.would_store ? "good" : "plain"}>{t("replay.would-store", { count: formatCount(result.would_store, language) })}</Badge>{" "}
                <Badge tone={result.still_refused ? "warn" : "good"}>{t("replay.still-refused", { count: formatCount(result.still_refused, language) })}</Badge>
              </p>
              {result.examples.length > 0 && (
                <Scroller label={t("replay.examples")}>
                  <table className="rows">
                    <tbody>
                      {result.examples.map((example) => (
                        <tr key={`${example.partition} ${example.offset}`}>
                          <td>{example.would_store ? "✓" : "✕"} <span className="unseen">{t(example.would_store ? "trace.good" : "trace.bad")}</span></td>
                          <td className="nowrap">{example.partition} / {example.offset}</td>
                          <td className="long"><Topic text={example.topic} /></td>
                          <td><Words text={example.words} /></td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </Scroller>
              )}
            </div>
          )}
          {corrected && (
            <div className="field">
              <label><input type="checkbox" checked={keep} onChange={(event) => setKeep(event.target.checked)} /> {t("replay.keep")}</label>
              <p className="note">{t("replay.keep.hint")}</p>
            </div>
          )}
          <div className="form-actions">
            <Button type="submit" disabled={dryRun.isPending}>{dryRun.isPending ? t("loading") : t("replay.try")}</Button>
            <Button kind="primary" disabled={!result?.would_store || replay.isPending} onClick={() => replay.mutate(undefined)}>{t("replay.do")}</Button>
          </div>
        </form>
      ) : (
        <ActionProgress tenant={tenant} action={action} />
      )}
    </Dialog>
  );
}
