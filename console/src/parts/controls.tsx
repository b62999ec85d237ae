/** Fields, notes and dialogs. */
import { useEffect, useId, useRef, type ButtonHTMLAttributes, type ReactNode } from "react";

import { ApiProblem } from "../api/problem";
import { formatDuration } from "../format/time";
import { useTexts, type Texts } from "../texts";

type Tone = "good" | "warn" | "bad" | "plain";

export function Button({ kind = "plain", ...rest }: ButtonHTMLAttributes<HTMLButtonElement> & { kind?: "plain" | "primary" | "danger" | "quiet" }) {
  return <button type="button" {...rest} className={`button ${kind} ${rest.className ?? ""}`} />;
}

/** A labelled input; what is wrong with it is said below and to screen readers. */
export function Field(props: { label: string; hint?: string | undefined; wrong?: string | undefined; children: (ids: { id: string; "aria-describedby"?: string; "aria-invalid"?: true }) => ReactNode }) {
  const id = useId();
  const note = props.wrong ?? props.hint;
  return (
    <div className="field">
      <label htmlFor={id}>{props.label}</label>
      {props.children({ id, ...(note ? { "aria-describedby": `${id}-note` } : {}), ...(props.wrong ? { "aria-invalid": true } : {}) })}
      {note && (
        <p id={`${id}-note`} className={props.wrong ? "note wrong" : "note"}>
          {note}
        </p>
      )}
    </div>
  );
}

/** A mark with a word: colour is never all that tells. */
export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`badge ${tone}`}>{children}</span>;
}

export function Banner({ tone, title, children }: { tone: Tone; title: string; children?: ReactNode }) {
  return (
    <section className={`banner ${tone}`}>
      <h2>{title}</h2>
      {children}
    </section>
  );
}

/** A problem in the viewer's language, with what the API said of it. */
export function problemText(error: unknown, { t, maybe, language }: Texts): string {
  if (!(error instanceof ApiProblem)) return t("problem.internal-error");
  const text = maybe(`problem.${error.slug}`, t("problem.internal-error"));
  if (error.retryAfter) return `${text} ${t("problem.wait", { time: formatDuration(error.retryAfter, language) })}`;
  return text;
}

export function ProblemNote({ error, retry }: { error: unknown; retry?: () => void }) {
  const texts = useTexts();
  if (!error) return null;
  const detail = error instanceof ApiProblem && !["wrong-password", "not-logged-in"].includes(error.slug) ? error.detail : "";
  return (
    <div role="alert" className="banner bad">
      <p>{problemText(error, texts)}</p>
      {detail && <p lang="en" className="detail">{detail}</p>}
      {retry && <Button onClick={retry}>{texts.t("try-again")}</Button>}
    </div>
  );
}

export function Waiting() {
  const { t } = useTexts();
  return (
    <p className="waiting" role="status">
      {t("loading")}
    </p>
  );
}

export function Nothing({ children }: { children: ReactNode }) {
  return <p className="nothing">{children}</p>;
}

/** Renders what a query brought, or that it is on its way, or why it did not come. */
export function Loaded<T>({ of, children }: { of: { data: T | undefined; error: unknown; refetch: () => unknown }; children: (data: T) => ReactNode }) {
  if (of.data !== undefined)
    return (
      <>
        {of.error ? <ProblemNote error={of.error} retry={() => void of.refetch()} /> : null}
        {children(of.data)}
      </>
    );
  return of.error ? <ProblemNote error={of.error} retry={() => void of.refetch()} /> : <Waiting />;
}

/** A modal dialog of the browser's own: focus stays inside, Escape closes it. */
export function Dialog({ title, onClose, children, wide = false }: { title: ReactNode; onClose: () => void; children: ReactNode; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const { t } = useTexts();
  useEffect(() => {
    const element = dialog.current;
    if (element && !element.open) element.showModal();
    return () => element?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      className={wide ? "wide" : ""}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <header>
        <h2 id={heading}>{title}</h2>
        <Button kind="quiet" aria-label={t("close")} onClick={onClose}>
          ✕
        </Button>
      </header>
      <div className="dialog-body">{children}</div>
    </dialog>
  );
}

/** A table that scrolls by itself on narrow screens, also by keyboard. */
export function Scroller({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="scroller" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

/** "More" below a list that comes in pages. */
export function More({ of }: { of: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown } }) {
  const { t } = useTexts();
  if (!of.hasNextPage) return null;
  return (
    <p className="more">
      <Button disabled={of.isFetchingNextPage} onClick={() => void of.fetchNextPage()}>
        {of.isFetchingNextPage ? t("loading") : t("more")}
      </Button>
    </p>
  );
}

export function Segments<T extends string>(props: { label: string; value: T; options: readonly { value: T; text: string }[]; onChange: (value: T) => void }) {
  return (
    <div className="segments" role="group" aria-label={props.label}>
      {props.options.map((option) => (
        <button key={option.value} type="button" aria-pressed={option.value === props.value} onClick={() => props.onChange(option.value)}>
          {option.text}
        </button>
      ))}
    </div>
  );
}
