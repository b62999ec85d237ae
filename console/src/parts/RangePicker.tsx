/** Which time: the last hours up to now, or from … to … */
import { useEffect, useMemo, useState, type FormEvent } from "react";

import { formatTime, fromInput, milliseconds, toInput, viewerZone } from "../format/time";
import { useTexts } from "../texts";
import { Button, Segments } from "./controls";
import type { Range } from "./series";

export const PRESETS = { "1h": 3600_000, "24h": 86400_000, "7d": 7 * 86400_000, "30d": 30 * 86400_000, "90d": 90 * 86400_000 } as const;
export type Preset = keyof typeof PRESETS;

/** The range that an address names: `from` and `to`, or a preset that moves on with the clock, half a minute to five at a time. */
export function rangeOf(search: { from?: string; to?: string; range?: string }, now: number): { span: Range; preset: Preset | null } {
  const from = milliseconds(search.from);
  const to = milliseconds(search.to);
  if (from !== null && to !== null && from < to) return { span: { from, to }, preset: null };
  const preset = search.range && Object.hasOwn(PRESETS, search.range) ? (search.range as Preset) : "24h";
  const step = Math.min(Math.max(PRESETS[preset] / 100, 30_000), 300_000);
  const end = Math.ceil(now / step) * step;
  return { span: { from: end - PRESETS[preset], to: end }, preset };
}

/** As rangeOf, by the clock of now. */
export function useRange(search: { from?: string; to?: string; range?: string }): { span: Range; preset: Preset | null } {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 30_000);
    return () => clearInterval(timer);
  }, []);
  const { from, to, range } = search;
  const found = rangeOf({ ...(from ? { from } : {}), ...(to ? { to } : {}), ...(range ? { range } : {}) }, now);
  return useMemo(() => found, [found.span.from, found.span.to, found.preset]);
}

interface Props {
  range: Range;
  preset: Preset | null;
  onPreset: (preset: Preset) => void;
  onRange: (range: Range) => void;
}

export function RangePicker({ range, preset, onPreset, onRange }: Props) {
  const { t } = useTexts();
  const [own, setOwn] = useState(false);
  return (
    <div className="toolbar range">
      <Segments
        label={t("range")}
        value={preset ?? ("" as Preset)}
        options={(Object.keys(PRESETS) as Preset[]).map((value) => ({ value, text: t(`range.${value}`) }))}
        onChange={onPreset}
      />
      <span className="range-words">
        {formatTime(range.from, "minute")} – {formatTime(range.to, "minute")} <span className="muted">{viewerZone()}</span>
      </span>
      <Button aria-expanded={own} onClick={() => setOwn(!own)}>
        {t("range.own")}
      </Button>
      {own && <Own key={`${range.from} ${range.to}`} range={range} onRange={onRange} />}
    </div>
  );
}

function Own({ range, onRange }: { range: Range; onRange: (range: Range) => void }) {
  const { t } = useTexts();
  const [from, setFrom] = useState(toInput(range.from));
  const [to, setTo] = useState(toInput(range.to));
  const [wrong, setWrong] = useState(false);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const begin = fromInput(from);
    const end = fromInput(to);
    const right = begin !== null && end !== null && begin < end;
    setWrong(!right);
    if (right) onRange({ from: begin, to: end });
  };
  return (
    <form className="toolbar" onSubmit={submit}>
      <label className="inline">
        <span>{t("range.from")}</span>
        <input type="datetime-local" step="1" value={from} onChange={(event) => setFrom(event.target.value)} aria-invalid={wrong} />
      </label>
      <label className="inline">
        <span>{t("range.to")}</span>
        <input type="datetime-local" step="1" value={to} onChange={(event) => setTo(event.target.value)} aria-invalid={wrong} />
      </label>
      <Button type="submit">{t("range.show")}</Button>
      {wrong && <span role="alert" className="note wrong">{t("range.wrong")}</span>}
    </form>
  );
}
