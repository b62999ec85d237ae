/** Names, times and ages. */
import { visible, visibleParts, languageOf } from "../format/visible";
import { formatAge, formatTime, formatUtc, milliseconds, type Precision } from "../format/time";
import { NOTHING } from "../format/number";
import { useTexts } from "../texts";
import { said } from "../texts/sentences";
import { useNow } from "./useNow";

/** Text that a device or a person chose: apart from its surroundings, hidden characters named, Han characters marked as Chinese. */
export function Name({ text, keep = "" }: { text: string; keep?: string }) {
  return (
    <bdi lang={languageOf(text)}>
      {visibleParts(text, keep).map((part, at) =>
        part.named ? (
          <span key={at} className="hidden-character">
            {part.text}
          </span>
        ) : (
          part.text
        ),
      )}
    </bdi>
  );
}

/** A topic: it breaks behind its slashes, not within an id. */
export function Topic({ text }: { text: string }) {
  const levels = text.split("/");
  return (
    <span>
      {levels.map((level, at) => (
        <span key={at}>
          <Name text={level} />
          {at < levels.length - 1 && <>/<wbr /></>}
        </span>
      ))}
    </span>
  );
}

/** A sentence that the platform wrote, in English: the audit's, a rule's. In the viewer's language where we know it; the original to hover. */
export function Words({ text }: { text: string }) {
  const { language } = useTexts();
  const shown = said(text, language);
  return <span lang={languageOf(shown) ?? "en"} {...(shown === text ? {} : { title: visible(text) })}>{visible(shown)}</span>;
}

function moment(at: number | string | null | undefined): number | null {
  return typeof at === "number" ? at : milliseconds(at);
}

/** A time in the viewer's zone; UTC to hover. */
export function Time({ at, precision = "second" }: { at: number | string | null | undefined; precision?: Precision }) {
  const time = moment(at);
  if (time === null) return <span>{NOTHING}</span>;
  return (
    <time dateTime={new Date(time).toISOString()} title={formatUtc(time)}>
      {formatTime(time, precision)}
    </time>
  );
}

/** How long ago; the time itself to hover. */
export function Age({ at }: { at: number | string | null | undefined }) {
  const { t, language } = useTexts();
  const now = useNow();
  const time = moment(at);
  if (time === null) return <span>{t("never")}</span>;
  return (
    <time dateTime={new Date(time).toISOString()} title={`${formatTime(time)} · ${formatUtc(time)}`}>
      {t("ago", { age: formatAge(now - time, language) })}
    </time>
  );
}
