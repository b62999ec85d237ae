/** The last quarter of an hour of the series in sight, so that a trend is there before new values come. */
import { answerOf, api } from "../api/client";
import type { Series } from "../api/model";
import { TREND_POINTS, type LiveStore } from "./store";

const PAST = 15 * 60_000;
/** Between two requests; the API allows a session 20 a second, and this is the least important of them. */
const PAUSE = 150;

/** Every n-th of so many, so that at most `most` are left, the last among them. */
export function sampled(count: number, most: number): number[] {
  const step = Math.max(1, Math.ceil(count / most));
  const indices: number[] = [];
  for (let at = count - 1; at >= 0; at -= step) indices.push(at);
  return indices.reverse();
}

export class Trends {
  private readonly asked = new Set<string>();
  private waiting: Series[] = [];
  private running = false;

  constructor(
    private readonly tenant: string,
    private readonly store: LiveStore,
  ) {}

  /** These are in sight now; what was asked for before and is not any more is left out. */
  want(series: readonly Series[]): void {
    this.waiting = series.filter((each) => each.value !== null && each.time !== null && Date.now() - each.time < PAST && !this.asked.has(each.key));
    if (!this.running) void this.run();
  }

  private async run(): Promise<void> {
    this.running = true;
    for (let next = this.waiting.shift(); next; next = this.waiting.shift()) {
      this.asked.add(next.key);
      try {
        await this.fill(next);
      } catch {
        break; // a trend is decoration: live values make it, too
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    this.running = false;
  }

  private async fill({ key, project, device, metric }: Series): Promise<void> {
    const now = Date.now();
    const query = { project, device, metric, from: new Date(now - PAST).toISOString(), to: new Date(now + 60_000).toISOString(), resolution: "raw" as const };
    const { columns } = await answerOf(api.GET("/api/v1/tenants/{tenant}/history", { params: { path: { tenant: this.tenant }, query } }));
    if (!("value" in columns)) return;
    this.store.addTrend(key, sampled(columns.time.length, TREND_POINTS).flatMap((at) => (columns.value[at] == null ? [] : [[columns.time[at]!, columns.value[at]!] as const])));
  }
}
