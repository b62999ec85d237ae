/** What the tabs of a browser and the one that holds its streams say to each other. */
import type { components } from "../api/schema";

/** What is to be streamed: a tenant, a project of it, or a device of that. */
export interface Scope {
  tenant: string;
  project?: string;
  device?: string;
}

type Columns = components["schemas"]["SeriesColumns"];
/** Values as they were committed. */
export type ValueColumns = Pick<Columns, "project" | "device" | "metric" | "value_text"> & {
  time: number[];
  value: (number | null)[];
  flags: (number | null)[];
};

/**
 * connecting: no stream yet · live: events come · catching-up: they come, and the database is behind Kafka · stalled: the server cannot
 * ask the database · silent: the stream is open but no heartbeat came · down: no stream, another try is under way · logged-out: the API wants a login.
 */
export type Connection = "connecting" | "live" | "catching-up" | "stalled" | "silent" | "down" | "logged-out";

export interface Health {
  connection: Connection;
  /** Since when it is so; milliseconds since the epoch. */
  since: number;
  /** Records in Kafka that are not in the database yet. */
  lag: number | null;
  /** From receipt to commit. */
  freshnessSeconds: number | null;
}

export type FromHub =
  | { kind: "values"; tenant: string; columns: ValueColumns }
  | { kind: "health"; tenant: string; health: Health }
  | { kind: "resync"; tenant: string };

export type ToHub = { kind: "want"; scope: Scope | null } | { kind: "here" } | { kind: "retry" };

/** The narrowest scope that holds all of these, which are of one tenant. */
export function commonScope(scopes: readonly Scope[]): Scope {
  const [first] = scopes;
  if (!first) throw new Error("no scope");
  const { tenant, project, device } = first;
  if (project === undefined || scopes.some((scope) => scope.project !== project)) return { tenant };
  if (device === undefined || scopes.some((scope) => scope.device !== device)) return { tenant, project };
  return { tenant, project, device };
}
