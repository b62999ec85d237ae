/** /login: name and password, or a provider. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useRouter, useSearch } from "@tanstack/react-router";
import { useState, type FormEvent } from "react";

import { answerOf, api } from "../api/client";
import { ApiProblem } from "../api/problem";
import { sessionQuery } from "../api/queries";
import { Button, Field, ProblemNote } from "../parts/controls";
import { LanguageAndTheme, usePageTitle } from "../parts/Layout";
import { useTexts } from "../texts";

/** Only addresses of this page: what begins with // or /\ names another host. */
export function safeReturn(address: string | undefined): string {
  return address && /^\/(?![/\\])/.test(address) ? address : "/";
}

export function LoginPage() {
  const { t, maybe } = useTexts();
  usePageTitle(t("login.title"));
  const search = useSearch({ from: "/login" });
  const client = useQueryClient();
  const router = useRouter();
  const navigate = useNavigate();
  const session = useQuery({ ...sessionQuery, refetchOnMount: false });
  const oidc = session.error instanceof ApiProblem ? session.error.oidc : null;
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const back = safeReturn(search.return_to);

  const logIn = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await answerOf(api.POST("/api/v1/session", { body: { name, password } }));
      client.clear();
      await client.fetchQuery(sessionQuery);
      await router.invalidate();
      await navigate({ href: back });
    } catch (problem) {
      setError(problem);
      setPassword("");
    } finally {
      setBusy(false);
    }
  };
  return (
    <main className="login">
      <div className="login-tools">
        <LanguageAndTheme />
      </div>
      <form className="card" onSubmit={(event) => void logIn(event)}>
        <h1>
          <img src="/icon.svg" alt="" width="30" height="30" /> {t("product")}
        </h1>
        <p className="lead">{t("login.lead")}</p>
        {search.problem && <p role="alert" className="banner bad">{maybe(`problem.${search.problem}`, t("problem.oidc"))}</p>}
        <Field label={t("login.name")}>
          {(ids) => <input {...ids} value={name} onChange={(event) => setName(event.target.value)} autoComplete="username" autoCapitalize="none" spellCheck={false} required autoFocus />}
        </Field>
        <Field label={t("login.password")}>
          {(ids) => <input {...ids} type="password" value={password} onChange={(event) => setPassword(event.target.value)} autoComplete="current-password" required />}
        </Field>
        <ProblemNote error={error} />
        <Button type="submit" kind="primary" disabled={busy}>
          {t("login.do")}
        </Button>
        {oidc?.enabled && (
          <a className="button" href={`/api/v1/oidc/login?return_to=${encodeURIComponent(back)}`}>
            {oidc.label || t("login.oidc")}
          </a>
        )}
        <p className="note">{t("login.help")}</p>
      </form>
    </main>
  );
}
