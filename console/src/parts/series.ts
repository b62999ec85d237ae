/** Series for a chart: gaps shown as gaps, and the words for a screen reader. */
import type { History, RawColumns, RollupColumns } from "../api/model";

export interface Points {
  /** Milliseconds since the epoch, ascending. */
  time: number[];
  value: (number | null)[];
  low: (number | null)[] | null;
  high: (number | null)[] | null;
  /** How many gaps were found. */
  gaps: number;
}

const STEP = { "1h": 3600_000, "1d": 86400_000 } as const;

export function isRollup(columns: RawColumns | RollupColumns): columns is RollupColumns {
  return "avg" in columns;
}

/** The median of up to 2,001 steps: enough to know a device's rhythm. */
export function usualStep(time: readonly number[]): number {
  const steps: number[] = [];
  const stride = Math.max(1, Math.floor(time.length / 2000));
  for (let at = 1; at < time.length; at += stride) steps.push(time[at]! - time[at - 1]!);
  steps.sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] ?? 0;
}

/** A pause longer than this many usual steps is a gap. */
const GAP_STEPS = 3.5;
/** Of readings that come faster than this no gap is shown below ten seconds: it would be jitter. */
const SHORTEST_GAP = 10_000;

/**
 * What a chart draws of a history: hours and days that are not there, and pauses of several usual steps, become an empty point, where a
 * line ends.
 */
export function pointsOf(history: Pick<History, "columns" | "resolution">): Points {
  const { columns, resolution } = history;
  const rollup = isRollup(columns) ? columns : null;
  const values = rollup ? rollup.avg : (columns as RawColumns).value;
  const longest = resolution === "raw" ? Math.max(usualStep(columns.time) * GAP_STEPS, SHORTEST_GAP) : STEP[resolution] * 1.5;
  const points: Points = { time: [], value: [], low: rollup ? [] : null, high: rollup ? [] : null, gaps: 0 };
  columns.time.forEach((time, at) => {
    const before = at ? columns.time[at - 1]! : time;
    if (time - before > longest) {
      points.time.push(before + (time - before) / 2);
      points.value.push(null);
      points.low?.push(null);
      points.high?.push(null);
      points.gaps += 1;
    }
    points.time.push(time);
    points.value.push(values[at] ?? null);
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
  lastTime: number | null;
}

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
  return {
    count: rollup ? columns.count.reduce((sum, count) => sum + count, 0) : columns.time.length,
    min, max, last: last.at(-1) ?? null, lastTime: columns.time.at(-1) ?? null,
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
