/** One stream of one tenant: opened, watched by its heartbeats, opened again for ever. */
import type { Connection, FromHub, Health, Scope, ValueColumns } from "./messages";

/** The API sends a heartbeat every 5 s at least. */
export const SILENT_AFTER = 12_000;
const SAY_LOST_AFTER = 3_000;
/** A stream that does not open by then is given up: a proxy may hold it for ever. */
const OPEN_WITHIN = 15_000;
/** More records than this in Kafka, or older than this: what is shown lags behind. */
const BEHIND_RECORDS = 5_000;
const BEHIND_SECONDS = 15;

interface StateEvent {
  connected: boolean;
  lag: number | null;
  freshness_seconds: number | null;
}

/** Before the n-th try in a row (from 0), in ms: half a second doubled up to 10 s, less up to a half by chance: a restart meets 100 viewers. */
export function retryDelay(tries: number, random: number): number {
  return Math.min(10_000, 500 * 2 ** tries) * (1 - random / 2);
}

export function isBehind(lag: number | null, freshnessSeconds: number | null): boolean {
  return (lag ?? 0) > BEHIND_RECORDS || ((lag ?? 0) > 0 && (freshnessSeconds ?? 0) > BEHIND_SECONDS);
}

export function addressOf(scope: Scope, last: string | null): string {
  const query = new URLSearchParams();
  if (scope.project !== undefined) query.set("project", scope.project);
  if (scope.device !== undefined) query.set("device", scope.device);
  if (last !== null) query.set("last", last);
  const rest = query.size ? `?${query}` : "";
  return `/api/v1/tenants/${encodeURIComponent(scope.tenant)}/live${rest}`;
}

/**
 * Holds an EventSource open. The browser's own reconnecting is not used: it gives up for good on any answer that is no stream, such as
 * the 503 of a server that starts. So every error closes it, and the next one names the last event's id in its address.
 */
export class Stream {
  private source: EventSource | null = null;
  private last: string | null = null;
  private tries = 0;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private silenceTimer: ReturnType<typeof setTimeout> | undefined;
  private lossTimer: ReturnType<typeof setTimeout> | undefined;
  private stalled = false;
  private opened: string | null = null;
  health: Health = { connection: "connecting", since: Date.now(), lag: null, freshnessSeconds: null };

  constructor(
    private scope: Scope,
    private readonly tell: (message: FromHub) => void,
  ) {
    this.open();
  }

  /** Streams another scope; the id of the last event holds for all scopes of a tenant. */
  narrow(scope: Scope): void {
    this.scope = scope;
    if (addressOf(scope, null) === this.opened) return;
    // What the new scope has that the old one had not came before this id: the page reads the series anew.
    this.tell({ kind: "resync", tenant: scope.tenant });
    this.open();
  }

  /** Tries at once: the network is back, or a tab came to the front. */
  retry(): void {
    if (this.source === null || this.health.connection === "silent") {
      this.tries = 0;
      this.open();
    }
  }

  /** For good. */
  leave(): void {
    this.close();
    clearTimeout(this.lossTimer);
  }

  private close(): void {
    clearTimeout(this.retryTimer);
    clearTimeout(this.silenceTimer);
    this.source?.close();
    this.source = null;
  }

  private open(): void {
    this.close();
    this.opened = addressOf(this.scope, null);
    const source = new EventSource(addressOf(this.scope, this.last));
    this.source = source;
    this.listenFor(OPEN_WITHIN);
    source.addEventListener("open", () => this.heard(source));
    source.addEventListener("values", (event) => this.values(source, event));
    source.addEventListener("state", (event) => this.state(source, event));
    source.addEventListener("resync", (event) => {
      if (event.lastEventId) this.last = event.lastEventId;
      this.tell({ kind: "resync", tenant: this.scope.tenant });
      this.heard(source);
    });
    source.onerror = () => {
      if (this.source === source) void this.lost();
    };
  }

  private values(source: EventSource, event: MessageEvent<string>): void {
    if (this.source !== source) return;
    if (event.lastEventId) this.last = event.lastEventId;
    const { columns } = JSON.parse(event.data) as { columns: ValueColumns };
    this.tell({ kind: "values", tenant: this.scope.tenant, columns });
    this.heard(source);
  }

  private state(source: EventSource, event: MessageEvent<string>): void {
    if (this.source !== source) return;
    if (event.lastEventId) this.last = event.lastEventId;
    const state = JSON.parse(event.data) as StateEvent;
    this.health = { ...this.health, lag: state.lag, freshnessSeconds: state.freshness_seconds };
    this.stalled = !state.connected;
    this.heard(source, true);
  }

  private heard(source: EventSource, always = false): void {
    if (this.source !== source) return;
    this.tries = 0;
    clearTimeout(this.lossTimer);
    this.lossTimer = undefined;
    this.listenFor(SILENT_AFTER);
    this.become(this.stalled ? "stalled" : isBehind(this.health.lag, this.health.freshnessSeconds) ? "catching-up" : "live", always);
  }

  private listenFor(milliseconds: number): void {
    clearTimeout(this.silenceTimer);
    this.silenceTimer = setTimeout(() => {
      this.become("silent");
      void this.lost(true);
    }, milliseconds);
  }

  private async lost(silent = false): Promise<void> {
    this.close();
    const delay = retryDelay(this.tries, Math.random());
    this.tries += 1;
    // The API ends each stream after some minutes, so that ended logins end it, too: that it is gone is said only when it stays so.
    if (!silent) this.lossTimer ??= setTimeout(() => this.become("down"), SAY_LOST_AFTER);
    this.retryTimer = setTimeout(() => this.open(), delay);
    // An EventSource does not say which status it got: ask whether it was 401.
    if (this.tries === 1 && (await loggedOut())) {
      this.leave();
      this.become("logged-out");
    }
  }

  private become(connection: Connection, always = false): void {
    if (connection === this.health.connection && !always) return;
    const since = connection === this.health.connection ? this.health.since : Date.now();
    this.health = { ...this.health, connection, since };
    this.tell({ kind: "health", tenant: this.scope.tenant, health: this.health });
  }
}

async function loggedOut(): Promise<boolean> {
  try {
    return (await fetch("/api/v1/session", { credentials: "same-origin", cache: "no-store" })).status === 401;
  } catch {
    return false;
  }
}
