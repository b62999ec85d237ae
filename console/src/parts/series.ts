/** Series for a chart: gaps shown as gaps, and the words for a screen reader. */
import type { History, RawColumns, RollupColumns } from "../api/model";

export interface Points {
  /** Milliseconds since the epoch, ascending. */
  time: number[];
  value: (number | null)[];
  /** Digits of whole numbers that a double cannot hold; null where `value` says it all. */
  text: (string | null)[];
  low: (number | null)[] | null;
  high: (number | null)[] | null;
  /** How many gaps were found. */
  gaps: number;
}

const STEP = { "1h": 3600_000, "1d": 86400_000 } as const;

export function isRollup(columns: RawColumns | RollupColumns): columns is RollupColumns {
  return "avg" in columns;
}

/** Steps of so many neighbouring readings are judged together: a device may change its rhythm. */
const BLOCK = 32;
/** Longer than so many usual steps is a gap; of readings that come irregularly, longer than so many of their longer ones. */
const GAP_STEPS = 3.5;
const GAP_LONG_STEPS = 2.5;
/** Of readings that come faster than this no gap is shown below ten seconds: it would be jitter. */
const SHORTEST_GAP = 10_000;

/** For each block of steps, how long a pause must be to be a gap there: by its own steps, and by those of its neighbours. */
export function gapLimits(time: readonly number[]): number[] {
  const limits: number[] = [];
  for (let from = 0; from < time.length; from += BLOCK) {
    const steps: number[] = [];
    for (let at = Math.max(from, 1); at < Math.min(from + BLOCK, time.length); at += 1) steps.push(time[at]! - time[at - 1]!);
    steps.sort((a, b) => a - b);
    // Of a few steps even the second longest may be a gap.
    const median = steps[Math.floor((steps.length - 1) / 2)] ?? 0;
    const long = steps.length < 10 ? 0 : steps[Math.floor((steps.length - 1) * 0.9)]!;
    limits.push(Math.max(median * GAP_STEPS, long * GAP_LONG_STEPS, SHORTEST_GAP));
  }
  return limits.map((limit, at) => Math.max(limit, limits[at - 1] ?? 0, limits[at + 1] ?? 0));
}

/**
 * What a chart draws of a history: hours and days that are not there, and pauses of several usual steps, become an empty point, where a
 * line ends.
 */
export function pointsOf(history: Pick<History, "columns" | "resolution">): Points {
  const { columns, resolution } = history;
  const rollup = isRollup(columns) ? columns : null;
  const values = rollup ? rollup.avg : (columns as RawColumns).value;
  const limits = resolution === "raw" ? gapLimits(columns.time) : null;
  const points: Points = { time: [], value: [], text: [], low: rollup ? [] : null, high: rollup ? [] : null, gaps: 0 };
  columns.time.forEach((time, at) => {
    const before = at ? columns.time[at - 1]! : time;
    if (time - before > (limits ? limits[Math.floor(at / BLOCK)]! : STEP[resolution as "1h" | "1d"] * 1.5)) {
      points.time.push(before + (time - before) / 2);
      points.value.push(null);
      points.text.push(null);
      points.low?.push(null);
      points.high?.push(null);
      points.gaps += 1;
    }
    points.time.push(time);
    points.value.push(values[at] ?? null);
    points.text.push(rollup ? null : ((columns as RawColumns).value_text[at] ?? null));
    points.low?.push(rollup?.min[at] ?? null);
    points.high?.push(rollup?.max[at] ?? null);
  });
  return points;
}

export interface Summary {
  count: number;
  min: number | null;
  max: number | null;
  last: number | null;
  /** Digits of these three where a double cannot hold them. */
  minText: string | null;
  maxText: string | null;
  lastText: string | null;
  lastTime: number | null;
}

const WHOLE = /^-?\d+$/;

/** Of all measurements behind the points, not of averages. */
export function summaryOf(columns: RawColumns | RollupColumns): Summary {
  const rollup = isRollup(columns);
  const low = rollup ? columns.min : columns.value;
  const high = rollup ? columns.max : columns.value;
  const last = rollup ? columns.last : columns.value;
  let min: number | null = null;
  let max: number | null = null;
  for (const value of low) if (value !== null && (min === null || value < min)) min = value;
  for (const value of high) if (value !== null && (max === null || value > max)) max = value;
  const digits = (wanted: number | null): bigint[] =>
    rollup || wanted === null ? [] : columns.value.flatMap((value, at) => (value === wanted && WHOLE.test(columns.value_text[at] ?? "") ? [BigInt(columns.value_text[at]!)] : []));
  const extreme = (found: bigint[], better: (a: bigint, b: bigint) => boolean) =>
    found.length ? String(found.reduce((best, each) => (better(each, best) ? each : best))) : null;
  return {
    count: rollup ? columns.count.reduce((sum, count) => sum + count, 0) : columns.time.length,
    min, max, last: last.at(-1) ?? null, lastText: rollup ? null : (columns.value_text.at(-1) ?? null),
    // Several of these may be one double.
    minText: extreme(digits(min), (a, b) => a < b), maxText: extreme(digits(max), (a, b) => a > b), lastTime: columns.time.at(-1) ?? null,
  };
}

export interface Range {
  from: number;
  to: number;
}

export const SHORTEST_RANGE = 10_000;
export const LONGEST_RANGE = 800 * 86400_000;

/** The range moved by a share of itself (−0.5: half of it back) and made longer or shorter around its middle (factor 2: twice as long). */
export function moved(range: Range, by: number, factor = 1): Range {
  const length = range.to - range.from;
  const wanted = Math.min(Math.max(length * factor, SHORTEST_RANGE), LONGEST_RANGE);
  const middle = range.from + length / 2 + length * by;
  return { from: Math.round(middle - wanted / 2), to: Math.round(middle + wanted / 2) };
}
