import { describe, expect, it } from "vitest";

import type { Balance } from "../api/model";
import { qualityOf } from "../api/model";
import { ApiProblem, mayRetry } from "../api/problem";
import { ticks } from "./chartPlugins";
import { rangeOf } from "./RangePicker";
import { ruleOf } from "./ReplayForm";
import { gapLimits, moved, pointsOf, SHORTEST_RANGE, summaryOf } from "./series";
import { sparkPath } from "./Sparkline";
import { filledHours, totalsOf, verdictOf } from "./verdict";

const NOW = Date.UTC(2026, 10, 30, 12);
const HOUR = 3600_000;
const raw = (time: number[], value: (number | null)[]) => ({ resolution: "raw" as const, columns: { time, value, value_text: time.map(() => null), flags: time.map(() => 0) } });

describe("history", () => {
  it("ends its line where a device paused for several of its steps", () => {
    const times = [0, 60, 120, 180, 600, 660].map((second) => second * 1000);
    const points = pointsOf(raw(times, [1, 2, 3, 4, 5, 6]));
    expect(points.gaps).toBe(1);
    expect(points.value).toEqual([1, 2, 3, 4, null, 5, 6]);
    expect(points.time[4]).toBe(390_000);
  });

  it("does not take jitter of a fast device for gaps", () => {
    expect(pointsOf(raw([0, 100, 200, 300, 4000, 4100], [1, 1, 1, 1, 1, 1])).gaps).toBe(0);
  });

  it("follows a device that changes its rhythm, and still sees a pause in either", () => {
    const slow = Array.from({ length: 200 }, (_, at) => at * 120_000);
    const fast = Array.from({ length: 2000 }, (_, at) => slow.at(-1)! + 120_000 + at * 1000);
    const times = [...slow, ...fast];
    const of = (all: number[]) => pointsOf(raw(all, all.map(() => 1))).gaps;
    expect(of(times)).toBe(0);
    expect(of(times.filter((_, at) => at < 100 || at > 110))).toBe(1);
    expect(of(times.filter((_, at) => at < 1500 || at > 1520))).toBe(1);
  });

  it("shows an hour that is not there as a gap, and the band of the others", () => {
    const columns = { time: [0, HOUR, 4 * HOUR], min: [1, 2, 3], max: [5, 6, 7], avg: [2, 3, 4], count: [10, 20, 30], first: [1, 2, 3], last: [3, 4, 5] };
    const points = pointsOf({ resolution: "1h", columns });
    expect(points.high).toEqual([5, 6, null, 7]);
    expect(points.low).toEqual([1, 2, null, 3]);
    expect(summaryOf(columns)).toMatchObject({ count: 60, min: 1, max: 7, last: 5, lastTime: 4 * HOUR });
  });

  it("keeps the digits of whole numbers that a double cannot hold", () => {
    const text = ["9223372036854775806", "9223372036854775807", "9223372036854775805"];
    const { resolution, columns } = raw([0, 1000, 60_000], text.map(Number));
    const history = { resolution, columns: { ...columns, value_text: text } };
    expect(pointsOf(history).text).toEqual([text[0], text[1], null, text[2]]);
    expect(summaryOf(history.columns)).toMatchObject({ minText: text[2], maxText: text[1], lastText: text[2] });
    expect(summaryOf(columns)).toMatchObject({ minText: null, maxText: null, lastText: null });
  });

  it("copes with nothing and with one", () => {
    expect(pointsOf(raw([], [])).time).toEqual([]);
    expect(summaryOf(raw([], []).columns).min).toBeNull();
    expect(gapLimits([])).toEqual([]);
    expect(pointsOf(raw([5], [1])).gaps).toBe(0);
  });

  it("moves and zooms around the middle, within bounds", () => {
    expect(moved({ from: 0, to: 100_000 }, 0.5)).toEqual({ from: 50_000, to: 150_000 });
    expect(moved({ from: 0, to: 100_000 }, 0, 0.5)).toEqual({ from: 25_000, to: 75_000 });
    expect(moved({ from: 0, to: 100_000 }, 0, 1e-9)).toEqual({ from: 50_000 - SHORTEST_RANGE / 2, to: 50_000 + SHORTEST_RANGE / 2 });
  });

  it("has the address's range, or one that goes with the clock", () => {
    expect(rangeOf({ from: "2026-11-01T00:00:00Z", to: "2026-11-02T00:00:00Z" }, NOW)).toEqual({ span: { from: Date.UTC(2026, 10, 1), to: Date.UTC(2026, 10, 2) }, preset: null });
    expect(rangeOf({ from: "2026-11-02T00:00:00Z", to: "2026-11-01T00:00:00Z" }, NOW).preset).toBe("24h");
    expect(rangeOf({ range: "toString" }, NOW).preset).toBe("24h");
    const { span } = rangeOf({ range: "1h" }, NOW);
    expect(span.to - span.from).toBe(HOUR);
    expect(span.to).toBeGreaterThanOrEqual(NOW);
  });

  it("labels a new day once", () => {
    const labels = ticks([NOW, NOW + HOUR, NOW + 24 * HOUR], HOUR);
    expect(labels[0]).toContain("\n");
    expect(labels[1]).not.toContain("\n");
    expect(labels[2]).toContain("\n");
  });

  it("draws a level line in the middle, and none of a single point", () => {
    expect(sparkPath({ time: [1], value: [1] })).toBe("");
    expect(sparkPath({ time: [0, 10], value: [5, 5] })).toBe("M2.0 14.0L118.0 14.0");
  });
});

describe("verdict", () => {
  const well: Balance = {
    hours: { time: [0], received: [10], stored: [8], duplicate: [1], quarantined: [1] }, in_flight: 0, lag: 0, freshness_seconds: 0.4, balanced: true, words: [],
    checked_at: new Date(NOW - 60_000).toISOString(), gaps: [], runs: [], incidents_open: 0,
  };
  const gap = { partition: 0, from_offset: "1", to_offset: "3", count: 3, topic: "", words: "" };
  it.each([
    ["well", well],
    ["missing", { ...well, gaps: [gap], balanced: false, incidents_open: 3 }],
    ["missing", { ...well, balanced: false }],
    ["unchecked", { ...well, balanced: false, checked_at: null }],
    ["unchecked", { ...well, balanced: false, checked_at: new Date(NOW - HOUR).toISOString() }],
    ["late", { ...well, lag: 100_000, incidents_open: 1 }],
    ["incidents", { ...well, incidents_open: 1 }],
    ["attention", { ...well, words: ["how much waits in Kafka is not known"] }],
  ])("is %s", (word, balance) => expect(verdictOf(balance, false, NOW).word).toBe(`verdict.${word}`));

  it("does not say all is well where nobody answers", () => {
    expect(verdictOf(undefined, true, NOW).word).toBe("verdict.unknown");
    expect(verdictOf(well, true, NOW).word).toBe("verdict.unknown");
    expect(totalsOf(well.hours)).toEqual({ received: 10, stored: 8, duplicate: 1, quarantined: 1 });
  });
});

describe("hours", () => {
  it("of which nothing came are there, with nothing", () => {
    const hours = { time: [NOW - HOUR], received: [3], stored: [2], duplicate: [1], quarantined: [0] };
    const filled = filledHours(hours, 3, NOW + 60_000);
    expect(filled.time).toEqual([NOW - 2 * HOUR, NOW - HOUR, NOW]);
    expect(filled.received).toEqual([0, 3, 0]);
    expect(filled.stored).toEqual([0, 2, 0]);
  });
});

describe("values and problems", () => {
  const series = { time: 1, value: 5, valueText: null, flags: null, validMin: 0, validMax: 10 };
  it.each([
    ["good", series], ["none", { ...series, time: null }], ["out-of-range", { ...series, value: 11 }], ["out-of-range", { ...series, value: -1, flags: 2 }],
    ["retained", { ...series, flags: 2 }], ["shifted", { ...series, flags: 1 }], ["late", { ...series, flags: 5 }], ["good", { ...series, value: null, valueText: "on" }],
  ])("are %s", (quality, of) => expect(qualityOf(of)).toBe(quality));

  it("sends of a rule what was filled in", () => {
    expect(ruleOf({ topic_pattern: " a/{tenant} ", time_pointers: "/ts, /time", default_timezone: "" })).toEqual({ topic_pattern: "a/{tenant}", time_pointers: ["/ts", "/time"] });
    expect(() => ruleOf({ topic_codecs: "{" })).toThrow(SyntaxError);
  });

  it("understands the API's problems, and answers that are none", () => {
    const body = { type: "/problems/locked", title: "", status: 429, detail: "x", errors: [{ field: "body.name", message: "no" }] };
    const problem = ApiProblem.of(body, new Response(null, { status: 429, headers: { "Retry-After": "30" } }));
    expect([problem.slug, problem.retryAfter, problem.field("name")]).toEqual(["locked", 30, "no"]);
    expect(ApiProblem.of("<html>", new Response(null, { status: 502 })).slug).toBe("internal-error");
    expect(mayRetry(0, problem)).toBe(true);
    expect(mayRetry(0, ApiProblem.of(null, new Response(null, { status: 404 })))).toBe(false);
    expect(mayRetry(2, problem)).toBe(false);
  });
});
