/** /t/{tenant}/quarantine: what was refused and why, as it came; and, for operators, storing it after all. */
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";

import { may, type QuarantinedMessage } from "../api/model";
import { quarantineQuery, sessionQuery } from "../api/queries";
import { formatBytes, formatCount } from "../format/number";
import { iso } from "../format/time";
import { Badge, Button, Dialog, Loaded, More, Nothing, Scroller } from "../parts/controls";
import { Corrections } from "../parts/Corrections";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Payload } from "../parts/Payload";
import { RangePicker, PRESETS, useRange } from "../parts/RangePicker";
import { ReplayForm } from "../parts/ReplayForm";
import { Time, Topic, Words } from "../parts/text";
import { TraceDialog } from "../parts/TraceDialog";
import { useTexts } from "../texts";

export function QuarantinePage() {
  const { t, maybe, language } = useTexts();
  usePageTitle(t("page.quarantine"));
  const { tenant } = useParams({ from: "/user/t/$tenant/quarantine" });
  const search = useSearch({ from: "/user/t/$tenant/quarantine" });
  const navigate = useNavigate({ from: "/t/$tenant/quarantine" });
  const { span, preset } = useRange({ range: "7d", ...search });
  const of = { from: iso(span.from), to: iso(span.to), reason: search.reason };
  const quarantine = useInfiniteQuery(quarantineQuery(tenant, of));
  const session = useQuery(sessionQuery);
  const role = session.data?.tenants.find((each) => each.tenant === tenant)?.role;
  const [shown, setShown] = useState<QuarantinedMessage | null>(null);
  const [traced, setTraced] = useState<QuarantinedMessage | null>(null);
  const [replaying, setReplaying] = useState(false);
  const go = (change: { reason?: string; from?: string; to?: string }) => void navigate({ search: change, replace: true });
  const reasonName = (reason: string) => maybe(`reason.${reason}`, reason);

  return (
    <>
      <PageHead title={t("page.quarantine")}>
        {may(role, "operator") && <Button kind="primary" onClick={() => setReplaying(true)}>{t("replay")}</Button>}
      </PageHead>
      <p className="lead">{t("quarantine.lead")}</p>
      <RangePicker
        range={span}
        preset={preset}
        onPreset={(chosen) => go({ from: iso(Date.now() - PRESETS[chosen]), to: iso(Date.now() + 60_000), ...(search.reason ? { reason: search.reason } : {}) })}
        onRange={({ from, to }) => go({ from: iso(from), to: iso(to), ...(search.reason ? { reason: search.reason } : {}) })}
      />
      <Loaded of={quarantine}>
        {({ pages }) => {
          const found = pages.flatMap((page) => page.messages);
          const reasons = pages[0]?.reasons ?? [];
          const times = { ...(search.from ? { from: search.from } : {}), ...(search.to ? { to: search.to } : {}) };
          return (
            <>
              <ul className="chips" aria-label={t("quarantine.reasons")}>
                <li>
                  <button type="button" aria-pressed={!search.reason} onClick={() => go(times)}>{t("quarantine.all")}</button>
                </li>
                {reasons.map(({ reason, count }) => (
                  <li key={reason}>
                    <button type="button" aria-pressed={search.reason === reason} title={reason} onClick={() => go({ ...times, reason })}>
                      {reasonName(reason)} <b>{formatCount(count, language)}</b>
                    </button>
                  </li>
                ))}
              </ul>
              {found.length === 0 ? (
                <Nothing>{t("quarantine.none")}</Nothing>
              ) : (
                <Scroller label={t("page.quarantine")}>
                  <table className="rows">
                    <thead>
                      <tr>
                        <th scope="col">{t("messages.received")}</th><th scope="col">{t("quarantine.reason")}</th><th scope="col">{t("detail")}</th>
                        <th scope="col">{t("topic")}</th><th scope="col">{t("messages.kafka")}</th><th scope="col" className="number">{t("messages.size")}</th>
                        <th scope="col">{t("quarantine.replayed")}</th><th scope="col"><span className="unseen">{t("payload")}</span></th>
                      </tr>
                    </thead>
                    <tbody>
                      {found.map((message) => (
                        <tr key={`${message.partition} ${message.offset}`}>
                          <td><Time at={message.received_at} /></td>
                          <td title={message.reason}><Badge tone="warn">{reasonName(message.reason)}</Badge></td>
                          <td className="long"><Words text={message.detail} /></td>
                          <td className="long"><Topic text={message.topic} /></td>
                          <td className="nowrap">{message.partition} / {message.offset}</td>
                          <td className="number">{formatBytes(message.size, language)}</td>
                          <td>{message.replayed_at ? <Time at={message.replayed_at} /> : "–"}</td>
                          <td className="nowrap">
                            <Button onClick={() => setShown(message)}>{t("payload")}</Button> <Button onClick={() => setTraced(message)}>{t("trace")}</Button>
                          </td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </Scroller>
              )}
              <More of={quarantine} />
            </>
          );
        }}
      </Loaded>
      <Corrections tenant={tenant} operator={may(role, "operator")} />
      {shown && (
        <Dialog wide title={reasonName(shown.reason)} onClose={() => setShown(null)}>
          <p><Words text={shown.detail} /></p>
          <p className="muted"><Topic text={shown.topic} /> · {t("trace.title", { partition: shown.partition, offset: shown.offset })}</p>
          <Payload base64={shown.payload_base64} size={shown.size} />
        </Dialog>
      )}
      {traced && <TraceDialog tenant={tenant} partition={traced.partition} offset={traced.offset} onClose={() => setTraced(null)} />}
      {replaying && <ReplayForm tenant={tenant} of={of} onClose={() => setReplaying(false)} />}
    </>
  );
}
