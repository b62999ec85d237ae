/** A payload as text and in hex. What would hide, reorder or move in the text is named. */
import { useMemo, useState } from "react";

import { formatBytes } from "../format/number";
import { bytesOf, hexLines, utf8 } from "../format/visible";
import { useTexts } from "../texts";
import { Scroller, Segments } from "./controls";
import { Name } from "./text";

export function Payload({ base64, size }: { base64: string; size: number }) {
  const { t, language } = useTexts();
  const bytes = useMemo(() => bytesOf(base64), [base64]);
  const text = useMemo(() => utf8(bytes), [bytes]);
  const [as, setAs] = useState<"text" | "hex">(text === null ? "hex" : "text");
  return (
    <div className="payload">
      <div className="toolbar">
        <Segments label={t("payload.as")} value={as} options={[{ value: "text", text: t("payload.text") }, { value: "hex", text: t("payload.hex") }]} onChange={setAs} />
        <span className="muted">{formatBytes(size, language)}</span>
        {bytes.length < size && <span className="note">{t("payload.cut", { size: formatBytes(bytes.length, language) })}</span>}
      </div>
      <Scroller label={t("payload")}>
        {as === "text" ? (
          text === null ? <p>{t("payload.no-text")}</p> : <pre dir="ltr">{size === 0 ? t("payload.empty") : <Name text={text} keep={"\n\t"} />}</pre>
        ) : (
          <pre dir="ltr">{hexLines(bytes).map((line) => `${line.offset}  ${line.hex.padEnd(47)}  ${line.text}\n`)}</pre>
        )}
      </Scroller>
    </div>
  );
}
