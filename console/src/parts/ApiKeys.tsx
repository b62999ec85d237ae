/** API keys of a tenant: made, shown once, deleted. */
import { useQuery } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";

import { answerOf, api } from "../api/client";
import type { GrantedTenant } from "../api/model";
import { keysQuery, useWrite } from "../api/queries";
import { iso } from "../format/time";
import { useTexts } from "../texts";
import { Button, Dialog, Field, Loaded, Nothing, ProblemNote, Scroller } from "./controls";
import { Age, Name, Time } from "./text";

export function ApiKeys({ tenants }: { tenants: readonly GrantedTenant[] }) {
  const { t } = useTexts();
  const [chosen, setChosen] = useState("");
  const tenant = chosen || tenants[0]?.tenant;
  return (
    <section>
      <h2>{t("keys")}</h2>
      <p className="lead">{t("keys.lead")}</p>
      {!tenant ? (
        <Nothing>{t("keys.no-tenant")}</Nothing>
      ) : (
        <>
          <label className="inline toolbar">
            <span>{t("tenant")}</span>
            <select value={tenant} onChange={(event) => setChosen(event.target.value)}>
              {tenants.map((each) => <option key={each.tenant} value={each.tenant}>{each.name || each.tenant}</option>)}
            </select>
          </label>
          <Keys key={tenant} tenant={tenant} />
        </>
      )}
    </section>
  );
}

function Keys({ tenant }: { tenant: string }) {
  const { t } = useTexts();
  const keys = useQuery(keysQuery(tenant));
  const [adding, setAdding] = useState(false);
  const remove = useWrite(
    (key_id: string) => answerOf(api.DELETE("/api/v1/tenants/{tenant}/api-keys/{key_id}", { params: { path: { tenant, key_id } } })),
    keysQuery(tenant).queryKey,
  );
  const [sure, setSure] = useState<string | null>(null);
  return (
    <>
      <p className="toolbar"><Button kind="primary" onClick={() => setAdding(true)}>{t("keys.add")}</Button></p>
      <ProblemNote error={remove.error} />
      <Loaded of={keys}>
        {(found) =>
          found.length === 0 ? <Nothing>{t("keys.none")}</Nothing> : (
            <Scroller label={t("keys")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("keys.name")}</th><th scope="col">{t("keys.created")}</th><th scope="col">{t("keys.expires")}</th>
                    <th scope="col">{t("keys.used")}</th><th scope="col"><span className="unseen">{t("keys.delete")}</span></th>
                  </tr>
                </thead>
                <tbody>
                  {found.map((key) => (
                    <tr key={key.key_id}>
                      <td><Name text={key.name} /></td>
                      <td><Time at={key.created_at} /> <small className="muted"><Name text={key.created_by} /></small></td>
                      <td>{key.expires_at ? <Time at={key.expires_at} precision="day" /> : t("never")}</td>
                      <td><Age at={key.last_used_at} /></td>
                      <td>
                        {sure === key.key_id ? (
                          <Button kind="danger" onClick={() => { remove.mutate(key.key_id); setSure(null); }}>{t("keys.delete-sure")}</Button>
                        ) : (
                          <Button aria-label={`${t("keys.delete")}: ${key.name}`} onClick={() => setSure(key.key_id)}>{t("keys.delete")}</Button>
                        )}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroller>
          )
        }
      </Loaded>
      {adding && <NewKey tenant={tenant} onClose={() => setAdding(false)} />}
    </>
  );
}

function NewKey({ tenant, onClose }: { tenant: string; onClose: () => void }) {
  const { t } = useTexts();
  const [name, setName] = useState("");
  const [day, setDay] = useState("");
  const [secret, setSecret] = useState<string | null>(null);
  const add = useWrite(async () => {
    const body = { name: name.trim(), expires_at: day ? iso(new Date(`${day}T00:00:00`).getTime()) : null };
    setSecret((await answerOf(api.POST("/api/v1/tenants/{tenant}/api-keys", { params: { path: { tenant } }, body }))).secret);
  }, keysQuery(tenant).queryKey);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    add.mutate(undefined);
  };
  return (
    <Dialog title={t("keys.add")} onClose={onClose}>
      {secret ? (
        <>
          <p>{t("keys.once")}</p>
          <Field label={t("keys.secret")}>{(ids) => <input {...ids} readOnly value={secret} onFocus={(event) => event.target.select()} />}</Field>
        </>
      ) : (
        <form onSubmit={submit}>
          <Field label={t("keys.name")}>{(ids) => <input {...ids} value={name} maxLength={128} onChange={(event) => setName(event.target.value)} required />}</Field>
          <Field label={t("keys.expires")} hint={t("keys.expires-hint")}>{(ids) => <input {...ids} type="date" value={day} onChange={(event) => setDay(event.target.value)} />}</Field>
          <ProblemNote error={add.error} />
          <div className="form-actions"><Button type="submit" kind="primary" disabled={add.isPending}>{t("keys.add")}</Button></div>
        </form>
      )}
    </Dialog>
  );
}
