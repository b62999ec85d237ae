/** The raw messages of a device in a time range. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";

import type { Message } from "../api/model";
import { messagesQuery } from "../api/queries";
import { formatBytes } from "../format/number";
import { iso } from "../format/time";
import { useTexts } from "../texts";
import { Badge, Button, Loaded, More, Nothing, Scroller } from "./controls";
import { Payload } from "./Payload";
import type { Range } from "./series";
import { Name, Time, Topic } from "./text";
import { TraceDialog } from "./TraceDialog";

export function MessageList({ tenant, project, device, range }: { tenant: string; project: string; device: string; range: Range }) {
  const { t } = useTexts();
  const messages = useInfiniteQuery(messagesQuery(tenant, { project, device, from: iso(range.from), to: iso(range.to) }));
  const [traced, setTraced] = useState<Message | null>(null);
  return (
    <section className="messages">
      <h2>{t("messages")}</h2>
      <Loaded of={messages}>
        {({ pages }) => {
          const found = pages.flatMap((page) => page.messages);
          if (found.length === 0) return <Nothing>{t("messages.none")}</Nothing>;
          return (
            <>
              <Scroller label={t("messages")}>
                <table className="rows">
                  <thead>
                    <tr>
                      <th scope="col">{t("messages.received")}</th><th scope="col">{t("topic")}</th><th scope="col">{t("messages.kafka")}</th>
                      <th scope="col" className="number">{t("messages.size")}</th><th scope="col">{t("messages.notes")}</th><th scope="col">{t("payload")}</th>
                      <th scope="col"><span className="unseen">{t("trace")}</span></th>
                    </tr>
                  </thead>
                  <tbody>
                    {found.map((message) => (
                      <Row key={`${message.partition} ${message.offset}`} message={message} onTrace={() => setTraced(message)} />
                    ))}
                  </tbody>
                </table>
              </Scroller>
              <More of={messages} />
            </>
          );
        }}
      </Loaded>
      {traced && <TraceDialog tenant={tenant} partition={traced.partition} offset={traced.offset} onClose={() => setTraced(null)} />}
    </section>
  );
}

function Row({ message, onTrace }: { message: Message; onTrace: () => void }) {
  const { t, language } = useTexts();
  const [open, setOpen] = useState(false);
  const preview = message.payload_text;
  return (
    <>
      <tr>
        <td><Time at={message.received_at} precision="millisecond" /></td>
        <td className="long"><Topic text={message.topic} /></td>
        <td className="nowrap">{message.partition} / {message.offset}</td>
        <td className="number">{formatBytes(message.size, language)}</td>
        <td>
          {message.duplicate_of !== null && <Badge tone="warn">{t("messages.duplicate")}</Badge>} {message.dup && <Badge tone="plain">DUP</Badge>}
          <span className="muted">QoS {message.qos}</span>
        </td>
        <td className="preview">
          <button type="button" className="link" aria-expanded={open} onClick={() => setOpen(!open)}>
            {preview === null ? t("payload.binary") : <Name text={preview.slice(0, 80)} />}
            {preview !== null && preview.length > 80 ? "…" : ""}
          </button>
        </td>
        <td><Button onClick={onTrace}>{t("trace")}</Button></td>
      </tr>
      {open && (
        <tr>
          <td colSpan={7}><Payload base64={message.payload_base64} size={message.size} /></td>
        </tr>
      )}
    </>
  );
}
