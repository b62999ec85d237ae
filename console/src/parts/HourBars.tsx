/** Messages by hour as stacked bars: stored, duplicate, quarantined, and what is left. The table below says the same in numbers. */
import type { Balance } from "../api/model";
import { formatTime } from "../format/time";
import { useTexts } from "../texts";

const HEIGHT = 120;
const KINDS = ["stored", "duplicate", "quarantined", "difference"] as const;

export function HourBars({ hours }: { hours: Balance["hours"] }) {
  const { t } = useTexts();
  const most = Math.max(1, ...hours.received);
  const width = 100 / hours.time.length;
  return (
    <figure className="hour-bars">
      <svg viewBox={`0 0 100 ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={t("balance.bars")}>
        {hours.time.map((time, at) => {
          const parts = [hours.stored[at]!, hours.duplicate[at]!, hours.quarantined[at]!];
          parts.push(Math.max(0, hours.received[at]! - parts.reduce((sum, part) => sum + part, 0)));
          let top = HEIGHT;
          return parts.map((part, kind) => {
            // A count that is not nought is to be seen: two units at least.
            const height = part ? Math.max((part / most) * (HEIGHT - 4), kind ? 2 : 0.5) : 0;
            top -= height;
            return height ? <rect key={`${time} ${kind}`} className={KINDS[kind]} x={at * width + width * 0.08} y={top} width={width * 0.84} height={height} /> : null;
          });
        })}
      </svg>
      <p className="bar-ends" aria-hidden="true">
        <span>{hours.time.length > 0 && formatTime(hours.time[0]!, "minute")}</span>
        <span>{hours.time.length > 0 && formatTime(hours.time.at(-1)!, "minute")}</span>
      </p>
      <figcaption className="legend">
        {KINDS.map((kind) => (
          <span key={kind}>
            <i className={`swatch ${kind}`} aria-hidden="true" /> {t(`balance.${kind}`)}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}
