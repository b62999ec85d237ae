import { describe, expect, it, vi } from "vitest";

import { seriesKey } from "../api/model";
import { commonScope, type ValueColumns } from "./messages";
import { addPoint, LiveStore, TREND_POINTS, type Trend } from "./store";
import { sampled } from "./trends";
import { addressOf, isBehind, retryDelay } from "./stream";

function one(time: number, value: number | null, text: string | null = null): ValueColumns {
  return { project: ["p"], device: ["d"], metric: ["m"], time: [time], value: [value], value_text: [text], flags: [null] };
}
const KEY = seriesKey("p", "d", "m");

describe("scopes", () => {
  it("share one stream of what holds them all", () => {
    const device = { tenant: "t", project: "p", device: "d" };
    expect(commonScope([device])).toEqual(device);
    expect(commonScope([device, { ...device, device: "e" }])).toEqual({ tenant: "t", project: "p" });
    expect(commonScope([device, { tenant: "t", project: "q" }])).toEqual({ tenant: "t" });
    expect(commonScope([{ tenant: "t", project: "p" }, device])).toEqual({ tenant: "t", project: "p" });
    expect(commonScope([{ tenant: "t" }, device])).toEqual({ tenant: "t" });
  });

  it("are addresses in which no name escapes", () => {
    expect(addressOf({ tenant: "1968193631353446400" }, null)).toBe("/api/v1/tenants/1968193631353446400/live");
    expect(addressOf({ tenant: "a/b", project: "p&q", device: "" }, "1.2~3")).toBe("/api/v1/tenants/a%2Fb/live?project=p%26q&device=&last=1.2%7E3");
  });
});

describe("streams", () => {
  it("are tried again soon, then less often, never all at once", () => {
    expect(retryDelay(0, 0)).toBe(500);
    expect(retryDelay(0, 1)).toBe(250);
    expect(retryDelay(3, 0)).toBe(4000);
    expect(retryDelay(50, 0)).toBe(10_000);
  });

  it("lag when much or old data waits", () => {
    expect(isBehind(null, null)).toBe(false);
    expect(isBehind(12, 0.4)).toBe(false);
    expect(isBehind(12, 60)).toBe(true);
    expect(isBehind(50_000, 1)).toBe(true);
    expect(isBehind(0, 3600)).toBe(false);
  });
});

describe("store", () => {
  it("holds the newest value, whatever the order, and nothing twice", () => {
    const store = new LiveStore();
    for (const time of [1000, 3000, 2000, 3000]) store.add(one(time, time));
    expect(store.get(KEY)?.time).toBe(3000);
    expect(store.trend(KEY)).toEqual({ time: [1000, 2000, 3000], value: [1000, 2000, 3000] });
  });

  it("takes a later value of the same time: conflicts may be settled so", () => {
    const store = new LiveStore();
    store.add(one(1000, 1));
    store.add(one(1000, 2));
    expect(store.get(KEY)?.value).toBe(2);
    expect(store.trend(KEY)?.value).toEqual([2]);
  });

  it("stands still while paused, and loses nothing", () => {
    const store = new LiveStore();
    store.add(one(1000, 1));
    store.pause(true);
    store.add(one(2000, 2));
    expect(store.get(KEY)?.value).toBe(1);
    expect(store.sincePause).toBe(1);
    store.pause(false);
    expect(store.get(KEY)?.value).toBe(2);
  });

  it("tells of any number of changes once in its time", () => {
    vi.useFakeTimers();
    const store = new LiveStore(250);
    const heard = vi.fn();
    store.subscribe(heard);
    for (let at = 0; at < 1000; at += 1) store.add(one(at, at));
    expect(heard).not.toHaveBeenCalled();
    vi.advanceTimersByTime(250);
    expect(heard).toHaveBeenCalledTimes(1);
    vi.useRealTimers();
  });

  it("keeps a bounded trend", () => {
    const trend: Trend = { time: [], value: [] };
    for (let at = 0; at < 500; at += 1) addPoint(trend, at, at);
    expect(trend.time.length).toBe(TREND_POINTS);
    expect(trend.time.at(-1)).toBe(499);
    expect(sampled(900, 60).length).toBe(60);
    expect(sampled(900, 60).at(-1)).toBe(899);
    expect(sampled(3, 60)).toEqual([0, 1, 2]);
  });
});
