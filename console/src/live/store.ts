/** Latest values and the last few of each series, as they come; React hears of them a few times a second, however many there are. */
import { seriesKey } from "../api/model";
import type { Health, ValueColumns } from "./messages";

export interface LiveValue {
  time: number;
  value: number | null;
  valueText: string | null;
  flags: number | null;
}

/** Points of a sparkline. */
export const TREND_POINTS = 60;

export interface Trend {
  time: number[];
  value: number[];
}

/** Puts a point where its time belongs; the same time again takes its place, so what comes twice is there once. */
export function addPoint(trend: Trend, time: number, value: number): void {
  let at = trend.time.length;
  while (at > 0 && trend.time[at - 1]! > time) at -= 1;
  if (at > 0 && trend.time[at - 1] === time) {
    trend.value[at - 1] = value;
    return;
  }
  trend.time.splice(at, 0, time);
  trend.value.splice(at, 0, value);
  if (trend.time.length > TREND_POINTS) {
    trend.time.shift();
    trend.value.shift();
  }
}

export class LiveStore {
  private latest = new Map<string, LiveValue>();
  private frozen: Map<string, LiveValue> | null = null;
  private readonly trends = new Map<string, Trend>();
  private readonly listeners = new Set<() => void>();
  private waiting = false;
  private beat = 0;
  /** Values that came since the pause began. */
  sincePause = 0;
  /** Values that came, in all. */
  received = 0;
  health: Health = { connection: "connecting", since: Date.now(), lag: null, freshnessSeconds: null };

  /** How often React hears of changes, at most. */
  constructor(private readonly every = 250) {}

  add(columns: ValueColumns): void {
    for (let at = 0; at < columns.metric.length; at += 1) {
      const key = seriesKey(columns.project[at]!, columns.device[at]!, columns.metric[at]!);
      const value: LiveValue = {
        time: columns.time[at]!, value: columns.value[at] ?? null, valueText: columns.value_text[at] ?? null, flags: columns.flags[at] ?? null,
      };
      const known = this.latest.get(key);
      if (!known || known.time <= value.time) this.latest.set(key, value);
      if (value.value !== null) addPoint(this.trendOf(key), value.time, value.value);
    }
    this.received += columns.metric.length;
    if (this.frozen) this.sincePause += columns.metric.length;
    this.changed();
  }

  /** Older points of a series, for its sparkline. */
  addTrend(key: string, points: readonly (readonly [time: number, value: number])[]): void {
    for (const [time, value] of points) addPoint(this.trendOf(key), time, value);
    this.changed();
  }

  private trendOf(key: string): Trend {
    let trend = this.trends.get(key);
    if (!trend) this.trends.set(key, (trend = { time: [], value: [] }));
    return trend;
  }

  setHealth(health: Health): void {
    this.health = health;
    this.changed();
  }

  clear(): void {
    this.latest = new Map();
    this.frozen = null;
    this.trends.clear();
    this.changed();
  }

  get(key: string): LiveValue | undefined {
    return (this.frozen ?? this.latest).get(key);
  }

  trend(key: string): Trend | undefined {
    return this.trends.get(key);
  }

  get paused(): boolean {
    return this.frozen !== null;
  }

  /** Values stay as they are; what comes is kept and shown afterwards. */
  pause(paused: boolean): void {
    this.frozen = paused ? new Map(this.latest) : null;
    this.sincePause = 0;
    this.changed();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  version = (): number => this.beat;

  private changed(): void {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      this.beat += 1;
      for (const listener of this.listeners) listener();
    }, this.every);
  }
}
