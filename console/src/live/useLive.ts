/** Live values in React: the store of this tab, fed by the browser's hub. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";

import { sessionQuery } from "../api/queries";
import { Hub } from "./hub";
import type { FromHub, Scope, ToHub } from "./messages";
import { LiveStore } from "./store";

export const store = new LiveStore();

type Send = (message: ToHub) => void;
let connected: Send | undefined;
let receive: (message: FromHub) => void = () => undefined;

/** Where there are no shared workers (Chrome on Android), each tab has a hub of its own. */
function connect(): Send {
  if (typeof SharedWorker === "undefined") return new Hub().join((message) => receive(message));
  const worker = new SharedWorker(new URL("./worker.ts", import.meta.url), { type: "module", name: "iot-live" });
  worker.port.onmessage = (event: MessageEvent<FromHub>) => receive(event.data);
  worker.port.start();
  return (message) => worker.port.postMessage(message);
}

/** Streams a scope while mounted, and as long as the page is there. */
export function useLiveFeed(scope: Scope): void {
  const client = useQueryClient();
  const { tenant, project, device } = scope;
  useEffect(() => {
    const send = (connected ??= connect());
    receive = (message) => {
      if (message.tenant !== tenant) return;
      if (message.kind === "values") store.add(message.columns);
      if (message.kind === "health") {
        store.setHealth(message.health);
        if (message.health.connection === "logged-out") void client.invalidateQueries({ queryKey: sessionQuery.queryKey });
      }
      if (message.kind === "resync") void client.invalidateQueries({ queryKey: [tenant, "series"] });
    };
    const want = () =>
      send({ kind: "want", scope: { tenant, ...(project === undefined ? {} : { project }), ...(device === undefined ? {} : { device }) } });
    const leave = () => send({ kind: "want", scope: null });
    const retry = () => document.visibilityState === "visible" && send({ kind: "retry" });
    want();
    const here = setInterval(() => send({ kind: "here" }), 30_000);
    addEventListener("pagehide", leave);
    addEventListener("pageshow", want);
    addEventListener("online", retry);
    document.addEventListener("visibilitychange", retry);
    return () => {
      clearInterval(here);
      removeEventListener("pagehide", leave);
      removeEventListener("pageshow", want);
      removeEventListener("online", retry);
      document.removeEventListener("visibilitychange", retry);
      leave();
    };
  }, [client, tenant, project, device]);
  useEffect(() => () => store.clear(), [tenant]);
}

/** The store, and a render each time that it changed. */
export function useLive(): LiveStore {
  useSyncExternalStore(store.subscribe, store.version);
  return store;
}
