/** A new user, or changes of one. */
import { useState, type FormEvent } from "react";

import { answerOf, api } from "../api/client";
import type { Role, User } from "../api/model";
import { ApiProblem } from "../api/problem";
import { usersQuery, useWrite } from "../api/queries";
import { useTexts } from "../texts";
import { Button, Dialog, Field, ProblemNote } from "./controls";

export function UserForm({ user, grantable, onClose }: { user: User | null; grantable: readonly string[]; onClose: () => void }) {
  const { t } = useTexts();
  const [name, setName] = useState(user?.name ?? "");
  const [displayName, setDisplayName] = useState(user?.display_name ?? "");
  const [password, setPassword] = useState("");
  const [administrator, setAdministrator] = useState(user?.administrator ?? false);
  const [roles, setRoles] = useState<Record<string, Role | "">>(() => Object.fromEntries((user?.tenants ?? []).map((grant) => [grant.tenant, grant.role as Role])));
  const all = [...new Set([...grantable, ...Object.keys(roles)])].sort();
  const save = useWrite(async () => {
    const tenants = Object.entries(roles).flatMap(([tenant, role]) => (role ? [{ tenant, role }] : []));
    const change = { display_name: displayName.trim(), administrator, tenants };
    if (user) await answerOf(api.PATCH("/api/v1/users/{name}", { params: { path: { name: user.name } }, body: { ...change, ...(password ? { password } : {}) } }));
    else await answerOf(api.POST("/api/v1/users", { body: { ...change, name: name.trim(), password } }));
    onClose();
  }, usersQuery.queryKey);
  const wrong = (field: string) => (save.error instanceof ApiProblem ? save.error.field(field) : undefined);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    save.mutate(undefined);
  };
  return (
    <Dialog title={user ? user.name : t("users.add")} onClose={onClose}>
      <form onSubmit={submit}>
        {!user && (
          <Field label={t("login.name")} hint={t("users.name-hint")} wrong={wrong("name")}>
            {(ids) => <input {...ids} value={name} autoComplete="off" autoCapitalize="none" spellCheck={false} pattern="[a-z0-9][a-z0-9._@\-]*" onChange={(event) => setName(event.target.value)} required />}
          </Field>
        )}
        <Field label={t("users.display_name")} wrong={wrong("display_name")}>
          {(ids) => <input {...ids} value={displayName} maxLength={200} onChange={(event) => setDisplayName(event.target.value)} />}
        </Field>
        <Field label={t(user ? "users.new-password" : "login.password")} hint={t(user ? "users.password-stays" : "users.password-hint")} wrong={wrong("password")}>
          {(ids) => <input {...ids} type="password" autoComplete="new-password" minLength={12} value={password} onChange={(event) => setPassword(event.target.value)} required={!user} />}
        </Field>
        <label className="check">
          <input type="checkbox" checked={administrator} onChange={(event) => setAdministrator(event.target.checked)} /> {t("users.is-administrator")}
        </label>
        <fieldset>
          <legend>{t("users.tenants")}</legend>
          {all.length === 0 && <p className="note">{t("users.no-tenants")}</p>}
          {all.map((tenant) => (
            <Field key={tenant} label={tenant}>
              {(ids) => (
                <select {...ids} value={roles[tenant] ?? ""} onChange={(event) => setRoles({ ...roles, [tenant]: event.target.value as Role | "" })}>
                  <option value="">{t("role.none")}</option>
                  {(["viewer", "operator", "admin"] as const).map((role) => <option key={role} value={role}>{t(`role.${role}`)}</option>)}
                </select>
              )}
            </Field>
          ))}
        </fieldset>
        <ProblemNote error={save.error} />
        <div className="form-actions"><Button type="submit" kind="primary" disabled={save.isPending}>{t("save")}</Button></div>
      </form>
    </Dialog>
  );
}
