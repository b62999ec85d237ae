/** Budgets of the pages, generous: what breaks them is a page that got slow, not a machine that is. */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { DEVICE, launch, PROJECT, TENANT, Visitor } from "./console";

const MOST = { largestPaint: 10_000, interactive: 15_000, blocking: 5_000, shift: 0.1 };

interface Seen {
  largestPaint: number;
  longTasks: { start: number; end: number }[];
  shift: number;
}

/** Runs in the page before its own scripts. */
function observe(): void {
  const seen: Seen = { largestPaint: 0, longTasks: [], shift: 0 };
  (window as unknown as { seen: Seen }).seen = seen;
  const each = (type: string, note: (entry: PerformanceEntry) => void) =>
    new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({ type, buffered: true });
  each("largest-contentful-paint", (entry) => (seen.largestPaint = entry.startTime));
  each("longtask", (entry) => seen.longTasks.push({ start: entry.startTime, end: entry.startTime + entry.duration }));
  each("layout-shift", (entry) => {
    const { value, hadRecentInput } = entry as PerformanceEntry & { value: number; hadRecentInput: boolean };
    if (!hadRecentInput) seen.shift += value;
  });
}

let browser: Browser;
let visitor: Visitor;
beforeAll(async () => {
  browser = await launch();
  visitor = await Visitor.arrive(browser);
  await visitor.context.addInitScript(observe);
  await visitor.logIn("viewer");
});
afterAll(() => browser.close());

describe("a page", () => {
  it.each([
    ["login", "/login", "form"],
    ["live", `/t/${TENANT}`, ".series-row .c-value"],
    ["device", `/t/${TENANT}/p/${PROJECT}/d/${DEVICE}?range=24h`, ".plot canvas"],
    ["balance", `/t/${TENANT}/balance`, ".hours td"],
  ])("%s is painted, ready and still within its budget", async (name, path, ready) => {
    const { page } = visitor;
    const client = await visitor.context.newCDPSession(page);
    await client.send("Emulation.setCPUThrottlingRate", { rate: 1 });
    await page.goto(path);
    await page.locator(ready).first().waitFor();
    const readyAt = await page.evaluate(() => performance.now());
    await page.waitForFunction(() => performance.now() - Math.max(0, ...(window as unknown as { seen: Seen }).seen.longTasks.map((task) => task.end)) > 1000);
    const seen = await page.evaluate(() => (window as unknown as { seen: Seen }).seen);
    const blocking = seen.longTasks.reduce((sum, task) => sum + task.end - task.start - 50, 0);
    const before = seen.longTasks.filter((task) => task.start < readyAt);
    const interactive = Math.max(readyAt, ...before.map((task) => task.end));
    console.log(`${name}: largest paint ${Math.round(seen.largestPaint)} ms, interactive ${Math.round(interactive)} ms, long tasks ${seen.longTasks.length} (blocking ${Math.round(blocking)} ms), shift ${seen.shift.toFixed(3)}`);
    expect(seen.largestPaint).toBeLessThanOrEqual(MOST.largestPaint);
    expect(interactive).toBeLessThanOrEqual(MOST.interactive);
    expect(blocking).toBeLessThanOrEqual(MOST.blocking);
    expect(seen.shift).toBeLessThanOrEqual(MOST.shift);
    await client.detach();
  });

  it("pans and zooms over 90 days; how long until the next frame is reported, not judged", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/p/${PROJECT}/d/archive?range=90d`);
    const chart = page.locator("figure.chart");
    await chart.locator("canvas").waitFor();
    await chart.focus();
    await page.evaluate(() => {
      const times: number[] = [];
      (window as unknown as { frames: number[] }).frames = times;
      document.addEventListener("keydown", () => {
        const begun = performance.now();
        requestAnimationFrame(() => requestAnimationFrame(() => times.push(performance.now() - begun)));
      }, true);
    });
    const keys = ["+", "ArrowLeft", "ArrowLeft", "ArrowRight", "-"];
    for (const [count, key] of Array.from({ length: 4 }, () => keys).flat().entries()) {
      const before = page.url();
      await page.keyboard.press(key);
      await expect.poll(() => page.url()).not.toBe(before);
      await page.waitForFunction((wanted) => (window as unknown as { frames: number[] }).frames.length >= wanted, count + 1);
    }
    const frames = (await page.evaluate(() => (window as unknown as { frames: number[] }).frames)).sort((a, b) => a - b);
    const at = (share: number) => Math.round(frames[Math.min(frames.length - 1, Math.floor(frames.length * share))]!);
    console.log(`90 days, hourly: from key to frame p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms of ${frames.length}`);
    expect(frames).toHaveLength(20);
    expect(visitor.errors).toEqual([]);
  });
});
