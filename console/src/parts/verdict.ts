/** Is all well? From the balance, in one word and one sentence. */
import type { Balance } from "../api/model";
import { isBehind } from "../live/stream";
import type { Key } from "../texts";

export interface Verdict {
  tone: "good" | "warn" | "bad" | "plain";
  word: Key;
  words: Key;
}

const AUDIT_STALE = 30 * 60_000;

/** Messages that the database does not account for. */
export function missingOf(balance: Pick<Balance, "gaps">): number {
  return balance.gaps.reduce((sum, gap) => sum + gap.count, 0);
}

/** What is missing comes before what is late, that before open incidents: the worst is said. */
export function verdictOf(balance: Balance | undefined, failed: boolean, now: number): Verdict {
  if (!balance) return failed ? verdict("bad", "unknown") : verdict("plain", "asking");
  // Not balanced also where the audit has not looked for half an hour: that is no finding.
  const looked = balance.checked_at !== null && now - Date.parse(balance.checked_at) < AUDIT_STALE;
  if (missingOf(balance) > 0 || (!balance.balanced && looked)) return verdict("bad", "missing");
  if (failed) return verdict("warn", "unknown");
  if (isBehind(balance.lag, balance.freshness_seconds)) return verdict("warn", "late");
  if (!balance.balanced) return verdict("warn", "unchecked");
  if (balance.words.length > 0) return verdict("warn", "attention");
  if (balance.incidents_open > 0) return verdict("warn", "incidents");
  return verdict("good", "well");
}

function verdict(tone: Verdict["tone"], name: "unknown" | "asking" | "missing" | "late" | "unchecked" | "attention" | "incidents" | "well"): Verdict {
  return { tone, word: `verdict.${name}`, words: `verdict.${name}.words` };
}

const HOUR = 3600_000;

/** The last hours, this one among them; those in which nothing was received have nought. */
export function filledHours(hours: Balance["hours"], count: number, now: number): Balance["hours"] {
  const last = Math.floor(now / HOUR) * HOUR;
  const time = Array.from({ length: count }, (_, at) => last - (count - 1 - at) * HOUR);
  const known = new Map(hours.time.map((each, at) => [each, at]));
  const fill = (column: readonly number[]) => time.map((each) => column[known.get(each) ?? -1] ?? 0);
  return { time, received: fill(hours.received), stored: fill(hours.stored), duplicate: fill(hours.duplicate), quarantined: fill(hours.quarantined) };
}

export interface HourTotals {
  received: number;
  stored: number;
  duplicate: number;
  quarantined: number;
}

export function totalsOf(hours: Balance["hours"]): HourTotals {
  const sum = (column: readonly number[]) => column.reduce((total, each) => total + each, 0);
  return { received: sum(hours.received), stored: sum(hours.stored), duplicate: sum(hours.duplicate), quarantined: sum(hours.quarantined) };
}
