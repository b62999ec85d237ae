/** What happened on the time axis, as a list: each line leads to its message. */
import { useState } from "react";

import type { Mark } from "../api/model";
import { formatCount } from "../format/number";
import { useTexts } from "../texts";
import { Button, ProblemNote, Scroller } from "./controls";
import { MARK_KINDS, type MarkKind } from "./chartPlugins";
import { Time, Words } from "./text";
import { TraceDialog } from "./TraceDialog";

const SHAPES: Record<MarkKind, string> = {
  late: "M6 1 11 11H1Z", conflict: "M6 0 12 6 6 12 0 6Z", quarantined: "M1 1H11V11H1Z", incident: "M6 1A5 5 0 1 0 6.01 1Z",
};

export function MarkSign({ kind }: { kind: MarkKind }) {
  return (
    <svg className={`mark ${kind}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      <path d={SHAPES[kind]} />
    </svg>
  );
}

export function Marks({ tenant, marks }: { tenant: string; marks: { data: Mark[] | undefined; error: unknown } }) {
  const { t, language } = useTexts();
  const [traced, setTraced] = useState<{ partition: number; offset: string } | null>(null);
  const [open, setOpen] = useState(false);
  const found = marks.data ?? [];
  const counts = MARK_KINDS.map((kind) => [kind, found.filter((mark) => mark.kind === kind).reduce((sum, mark) => sum + mark.count, 0)] as const);
  return (
    <section className="marks" aria-label={t("marks")}>
      <ProblemNote error={marks.error} />
      <p className="legend">
        {counts.map(([kind, count]) => (
          <span key={kind} className={count ? "" : "muted"}>
            <MarkSign kind={kind} /> {t(`marks.${kind}`)} {formatCount(count, language)}
          </span>
        ))}
        {found.length > 0 && <Button aria-expanded={open} onClick={() => setOpen(!open)}>{t("marks.show")}</Button>}
      </p>
      {open && found.length > 0 && (
        <Scroller label={t("marks")}>
          <table>
            <thead>
              <tr>
                <th scope="col">{t("time")}</th><th scope="col">{t("marks.what")}</th><th scope="col" className="number">{t("marks.count")}</th>
                <th scope="col">{t("detail")}</th><th scope="col"><span className="unseen">{t("trace")}</span></th>
              </tr>
            </thead>
            <tbody>
              {found.map((mark, at) => (
                <tr key={at}>
                  <td><Time at={mark.time} /></td>
                  <td><MarkSign kind={mark.kind} /> {t(`marks.${mark.kind}`)}</td>
                  <td className="number">{formatCount(mark.count, language)}</td>
                  <td><Words text={mark.detail} /></td>
                  <td>{mark.trace && <Button onClick={() => setTraced(mark.trace)}>{t("trace")}</Button>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroller>
      )}
      {traced && <TraceDialog tenant={tenant} {...traced} onClose={() => setTraced(null)} />}
    </section>
  );
}
