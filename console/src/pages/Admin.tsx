/** /admin: users and what they may see; API keys. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { answerOf, api } from "../api/client";
import type { Role, User } from "../api/model";
import { sessionQuery, usersQuery, useWrite } from "../api/queries";
import { milliseconds } from "../format/time";
import { ApiKeys } from "../parts/ApiKeys";
import { Badge, Button, Loaded, ProblemNote, Scroller } from "../parts/controls";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Age, Name } from "../parts/text";
import { useNow } from "../parts/useNow";
import { UserForm } from "../parts/UserForm";
import { useTexts } from "../texts";

export function AdminPage() {
  const { t } = useTexts();
  usePageTitle(t("page.admin"));
  const session = useQuery(sessionQuery);
  const administered = session.data?.tenants.filter((each) => each.role === "admin") ?? [];
  return (
    <main id="main" tabIndex={-1}>
      <PageHead title={t("page.admin")} />
      <UsersSection self={session.data?.user.name} />
      <ApiKeys tenants={administered} />
    </main>
  );
}

function UsersSection({ self }: { self: string | undefined }) {
  const { t } = useTexts();
  const users = useQuery(usersQuery);
  const now = useNow();
  const [editing, setEditing] = useState<User | "new" | null>(null);
  const disable = useWrite(
    (user: User) => answerOf(api.PATCH("/api/v1/users/{name}", { params: { path: { name: user.name } }, body: { disabled: !user.disabled } })),
    usersQuery.queryKey,
  );
  return (
    <section>
      <div className="page-head">
        <h2>{t("users")}</h2>
        <div className="page-tools"><Button kind="primary" onClick={() => setEditing("new")}>{t("users.add")}</Button></div>
      </div>
      <ProblemNote error={disable.error} />
      <Loaded of={users}>
        {({ users: found, grantable }) => (
          <>
            <Scroller label={t("users")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("login.name")}</th><th scope="col">{t("users.display_name")}</th><th scope="col">{t("users.tenants")}</th>
                    <th scope="col">{t("state")}</th><th scope="col">{t("users.last-login")}</th><th scope="col"><span className="unseen">{t("edit")}</span></th>
                  </tr>
                </thead>
                <tbody>
                  {found.map((user) => (
                    <tr key={user.name}>
                      <td><Name text={user.name} /></td>
                      <td><Name text={user.display_name} /></td>
                      <td>
                        {user.administrator && <Badge tone="plain">{t("users.administrator")}</Badge>}
                        {user.tenants.map((grant) => <div key={grant.tenant}><Name text={grant.tenant} /> <small className="muted">{t(`role.${grant.role as Role}`)}</small></div>)}
                      </td>
                      <td>
                        {user.disabled ? <Badge tone="bad">{t("users.disabled")}</Badge> : (milliseconds(user.locked_until) ?? 0) > now ? <Badge tone="warn">{t("users.locked")}</Badge> : <Badge tone="good">{t("users.active")}</Badge>}
                      </td>
                      <td><Age at={user.last_login_at} /></td>
                      <td className="nowrap">
                        <Button aria-label={`${t("edit")}: ${user.name}`} onClick={() => setEditing(user)}>{t("edit")}</Button>{" "}
                        {user.name !== self && <Button disabled={disable.isPending} aria-label={`${t(user.disabled ? "users.enable" : "users.disable")}: ${user.name}`} onClick={() => disable.mutate(user)}>{t(user.disabled ? "users.enable" : "users.disable")}</Button>}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroller>
            {editing && <UserForm user={editing === "new" ? null : editing} grantable={grantable} onClose={() => setEditing(null)} />}
          </>
        )}
      </Loaded>
    </section>
  );
}
