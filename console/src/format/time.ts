/** Times as a person reads them: in the viewer's zone, with UTC to hover. Milliseconds since the epoch throughout. */

const formats = new Map<string, Intl.DateTimeFormat>();

function format(language: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = language + JSON.stringify(options);
  let found = formats.get(key);
  if (!found) formats.set(key, (found = new Intl.DateTimeFormat(language, options)));
  return found;
}

export type Precision = "day" | "minute" | "second" | "millisecond";

/** Date and time in a zone (the viewer's unless named), e.g. 2026-11-30 09:12:07. The same order in every language: it sorts, it is ISO. */
export function formatTime(moment: number, precision: Precision = "second", zone?: string): string {
  const parts: Record<string, string> = {};
  const options: Intl.DateTimeFormatOptions = {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
    fractionalSecondDigits: 3, hourCycle: "h23",
    ...(zone ? { timeZone: zone } : {}),
  };
  for (const part of format("en-GB", options).formatToParts(moment)) parts[part.type] = part.value;
  const day = `${parts.year}-${parts.month}-${parts.day}`;
  if (precision === "day") return day;
  const minute = `${day} ${parts.hour}:${parts.minute}`;
  if (precision === "minute") return minute;
  const second = `${minute}:${parts.second}`;
  return precision === "second" ? second : `${second}.${parts.fractionalSecond}`;
}

/** The time in UTC, to the millisecond, for titles. */
export function formatUtc(moment: number): string {
  return `${formatTime(moment, "millisecond", "UTC")} UTC`;
}

/** Name of the viewer's zone, e.g. Asia/Shanghai. */
export function viewerZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** How long ago, in the largest unit that fits, e.g. 3 s, 12 min, 5 h, 2 d. Future times are 0 s: clocks differ. */
export function formatAge(milliseconds: number, language: string): string {
  return formatDuration(Math.max(0, milliseconds) / 1000, language);
}

const UNITS: [number, Intl.NumberFormatOptions["unit"]][] = [
  [86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"],
];

/** A duration, e.g. 0.4 s, 12 s, 3 min, 5 h, 2 d, in the language's short units. */
export function formatDuration(seconds: number, language: string): string {
  const [size, unit] = UNITS.find(([length]) => seconds >= length) ?? [1, "second" as const];
  const digits = seconds < 10 ? 1 : 0;
  const options = { style: "unit", unit: unit!, unitDisplay: "short", maximumFractionDigits: size === 1 ? digits : 0 } as const;
  const key = `duration ${language}${unit}${digits}`;
  let found = durations.get(key);
  if (!found) durations.set(key, (found = new Intl.NumberFormat(language, options)));
  return found.format(size === 1 ? seconds : Math.floor(seconds / size));
}
const durations = new Map<string, Intl.NumberFormat>();

/** Milliseconds of an ISO 8601 time, or null. */
export function milliseconds(iso: string | null | undefined): number | null {
  if (!iso) return null;
  const moment = Date.parse(iso);
  return Number.isNaN(moment) ? null : moment;
}

/** ISO 8601 UTC, whole milliseconds, as the API takes it. */
export function iso(moment: number): string {
  return new Date(moment).toISOString();
}

/** Value of an <input type="datetime-local"> for a moment, in the viewer's zone. */
export function toInput(moment: number): string {
  return formatTime(moment, "second").replace(" ", "T");
}

/** The moment that a datetime-local input names in the viewer's zone, or null. */
export function fromInput(typed: string): number | null {
  const moment = new Date(typed).getTime();
  return Number.isNaN(moment) ? null : moment;
}
