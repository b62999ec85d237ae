/** The streams of a browser: one for each tenant that a tab looks at, whatever the number of tabs. */
import { commonScope, type FromHub, type Scope, type ToHub } from "./messages";
import { Stream } from "./stream";

/** A tab that did not say that it is here for so long is gone; timers of hidden tabs fire once a minute at least. */
const GONE_AFTER = 150_000;

interface Tab {
  send: (message: FromHub) => void;
  scope: Scope | null;
  heardAt: number;
}

/**
 * Chromium gives a host six connections over HTTP/1.1, all tabs together: a stream for each tab would leave none for anything else. Tabs
 * that look at different parts of a tenant share the stream of what holds both, and leave out what is not theirs.
 */
export class Hub {
  private readonly tabs = new Set<Tab>();
  private readonly streams = new Map<string, Stream>();

  constructor() {
    setInterval(() => this.sweep(), 60_000);
  }

  /** A new tab; the function takes what it says. */
  join(send: (message: FromHub) => void): (message: ToHub) => void {
    const tab: Tab = { send, scope: null, heardAt: Date.now() };
    return (message) => {
      tab.heardAt = Date.now();
      this.tabs.add(tab);
      if (message.kind === "want") this.want(tab, message.scope);
      if (message.kind === "retry" && tab.scope) this.streams.get(tab.scope.tenant)?.retry();
    };
  }

  private want(tab: Tab, scope: Scope | null): void {
    const before = tab.scope;
    tab.scope = scope;
    if (scope === null) this.tabs.delete(tab);
    if (before && before.tenant !== scope?.tenant) this.adjust(before.tenant);
    if (scope) {
      this.adjust(scope.tenant);
      const stream = this.streams.get(scope.tenant);
      if (stream) tab.send({ kind: "health", tenant: scope.tenant, health: stream.health });
    }
  }

  private adjust(tenant: string): void {
    const scopes = [...this.tabs].flatMap((tab) => (tab.scope?.tenant === tenant ? [tab.scope] : []));
    const stream = this.streams.get(tenant);
    if (scopes.length === 0) {
      stream?.leave();
      this.streams.delete(tenant);
    } else if (stream) {
      stream.narrow(commonScope(scopes));
    } else {
      this.streams.set(tenant, new Stream(commonScope(scopes), (message) => this.tell(message)));
    }
  }

  private tell(message: FromHub): void {
    for (const tab of this.tabs) if (tab.scope?.tenant === message.tenant) tab.send(message);
  }

  private sweep(): void {
    for (const tab of [...this.tabs]) if (Date.now() - tab.heardAt > GONE_AFTER) this.want(tab, null);
  }
}
