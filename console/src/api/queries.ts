/** The reads of the API as queries: what is asked, how long it holds, how often it is asked again. */
import { infiniteQueryOptions, keepPreviousData, queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";

import { answerOf, api, setCsrfToken } from "./client";
import { seriesOf, type Action, type ActionRequest, type History } from "./model";

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async ({ signal }) => {
    const session = await answerOf(api.GET("/api/v1/session", { signal }));
    setCsrfToken(session.csrf_token);
    return session;
  },
  staleTime: 60_000,
  retry: false,
});

export const projectsQuery = (tenant: string) =>
  queryOptions({
    queryKey: [tenant, "projects"],
    queryFn: async ({ signal }) =>
      (await answerOf(api.GET("/api/v1/tenants/{tenant}/projects", { params: { path: { tenant } }, signal }))).projects,
    refetchInterval: 15_000,
  });

export interface SeriesFilter {
  project?: string | undefined;
  device?: string | undefined;
  search?: string | undefined;
}

const PAGE = 500;

/** Pages of series with their latest values. */
export const seriesQuery = (tenant: string, filter: SeriesFilter) =>
  infiniteQueryOptions({
    queryKey: [tenant, "series", filter],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) => {
      const query = { ...given(filter), limit: PAGE, ...(pageParam ? { after: pageParam } : {}) };
      const page = await answerOf(api.GET("/api/v1/tenants/{tenant}/series", { params: { path: { tenant }, query }, signal }));
      return { series: seriesOf(page.columns), next: page.next };
    },
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
    staleTime: 30_000,
  });

export interface Span {
  from: string;
  to: string;
}

/** History of a series; what was shown before stays until the new one has come, so a zoom never blinks. */
export const historyQuery = (tenant: string, of: { project: string; device: string; metric: string } & Span, resolution: History["resolution"] | "auto") =>
  queryOptions({
    queryKey: [tenant, "history", of.project, of.device, of.metric, of.from, of.to, resolution],
    queryFn: ({ signal }) =>
      answerOf(api.GET("/api/v1/tenants/{tenant}/history", { params: { path: { tenant }, query: { ...of, resolution } }, signal })),
    placeholderData: (before, query) => (query?.queryKey[4] === of.metric && query.queryKey[3] === of.device ? before : undefined),
    staleTime: 60_000,
    gcTime: 120_000,
  });

export const marksQuery = (tenant: string, of: { project: string; device: string; metric: string } & Span) =>
  queryOptions({
    queryKey: [tenant, "marks", of],
    queryFn: async ({ signal }) =>
      (await answerOf(api.GET("/api/v1/tenants/{tenant}/marks", { params: { path: { tenant }, query: of }, signal }))).marks,
    placeholderData: keepPreviousData,
  });

export const messagesQuery = (tenant: string, of: { project: string; device: string } & Span) =>
  infiniteQueryOptions({
    queryKey: [tenant, "messages", of],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam, signal }) => {
      const query = { ...of, limit: 50, ...(pageParam ? { after: pageParam } : {}) };
      return answerOf(api.GET("/api/v1/tenants/{tenant}/messages", { params: { path: { tenant }, query }, signal }));
    },
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
  });

export const traceQuery = (tenant: string, partition: number, offset: string) =>
  queryOptions({
    queryKey: [tenant, "trace", partition, offset],
    queryFn: async ({ signal }) => {
      // Offsets are 64 bit and so strings here; the address takes their digits.
      const query = { partition, offset: offset as unknown as number };
      return (await answerOf(api.GET("/api/v1/tenants/{tenant}/trace", { params: { path: { tenant }, query }, signal }))).steps;
    },
  });

/** Hours of the balance: the range is cut to whole hours, so that it is the same query for everybody on the page. */
export const balanceQuery = (tenant: string, hours: number, now: number) => {
  const to = Math.floor(now / 3600_000) * 3600_000 + 3600_000;
  const span = { from: new Date(to - hours * 3600_000).toISOString(), to: new Date(to).toISOString() };
  return queryOptions({
    queryKey: [tenant, "balance", span],
    queryFn: ({ signal }) =>
      answerOf(api.GET("/api/v1/tenants/{tenant}/balance", { params: { path: { tenant }, query: span }, signal })),
    refetchInterval: 15_000,
    placeholderData: keepPreviousData,
  });
};

export const quarantineQuery = (tenant: string, of: { reason?: string | undefined } & Span) =>
  infiniteQueryOptions({
    queryKey: [tenant, "quarantine", of],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam, signal }) => {
      const query = { from: of.from, to: of.to, limit: 50, ...(of.reason ? { reason: of.reason } : {}), ...(pageParam ? { after: pageParam } : {}) };
      return answerOf(api.GET("/api/v1/tenants/{tenant}/quarantine", { params: { path: { tenant }, query }, signal }));
    },
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
  });

export const correctionsQuery = (tenant: string) =>
  queryOptions({
    queryKey: [tenant, "corrections"],
    queryFn: async ({ signal }) =>
      (await answerOf(api.GET("/api/v1/tenants/{tenant}/corrections", { params: { path: { tenant } }, signal }))).corrections,
  });

export const incidentsQuery = (tenant: string, state: "open" | "all") =>
  infiniteQueryOptions({
    queryKey: [tenant, "incidents", state],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam, signal }) => {
      const query = { state, limit: 100, ...(pageParam ? { after: pageParam } : {}) };
      return answerOf(api.GET("/api/v1/tenants/{tenant}/incidents", { params: { path: { tenant }, query }, signal }));
    },
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: 15_000,
  });

export const rulesQuery = (tenant: string) =>
  queryOptions({
    queryKey: [tenant, "rules"],
    queryFn: async ({ signal }) =>
      (await answerOf(api.GET("/api/v1/tenants/{tenant}/rules", { params: { path: { tenant } }, signal }))).rules,
  });

export const infoChangesQuery = (tenant: string, of: { project: string; device: string; metric: string }) =>
  queryOptions({
    queryKey: [tenant, "info-changes", of],
    queryFn: async ({ signal }) =>
      (await answerOf(api.GET("/api/v1/tenants/{tenant}/series-info/changes", { params: { path: { tenant }, query: of }, signal }))).changes,
  });

export const actionsQuery = (tenant: string) =>
  infiniteQueryOptions({
    queryKey: [tenant, "actions"],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam, signal }) => {
      const query = { limit: 50, ...(pageParam ? { after: pageParam } : {}) };
      return answerOf(api.GET("/api/v1/tenants/{tenant}/actions", { params: { path: { tenant }, query }, signal }));
    },
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: 5_000,
  });

/** One action until it is done. */
export const actionQuery = (tenant: string, action: string | null) =>
  queryOptions({
    queryKey: [tenant, "action", action],
    enabled: action !== null,
    queryFn: ({ signal }): Promise<Action> =>
      answerOf(api.GET("/api/v1/tenants/{tenant}/actions/{action_id}", { params: { path: { tenant, action_id: action! } }, signal })),
    refetchInterval: (query) => (isOver(query.state.data) ? false : 700),
  });

export function isOver(action: Action | undefined): boolean {
  return action?.state === "done" || action?.state === "failed";
}

export const usersQuery = queryOptions({
  queryKey: ["users"],
  queryFn: ({ signal }) => answerOf(api.GET("/api/v1/users", { signal })),
});

export const keysQuery = (tenant: string) =>
  queryOptions({
    queryKey: [tenant, "keys"],
    queryFn: async ({ signal }) =>
      (await answerOf(api.GET("/api/v1/tenants/{tenant}/api-keys", { params: { path: { tenant } }, signal }))).keys,
  });

/** Asks for a write that the platform carries out by itself; the number by which it can be followed. */
export async function askFor(tenant: string, body: ActionRequest): Promise<string> {
  return (await answerOf(api.POST("/api/v1/tenants/{tenant}/actions", { params: { path: { tenant } }, body }))).action_id;
}

/** A write; afterwards everything below `touches` is asked anew. */
export function useWrite<In, Out>(write: (input: In) => Promise<Out>, touches: readonly unknown[]) {
  const client = useQueryClient();
  return useMutation({ mutationFn: write, onSuccess: () => client.invalidateQueries({ queryKey: touches }) });
}

function given<T extends object>(filter: T): { [K in keyof T]: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value)) as { [K in keyof T]: NonNullable<T[K]> };
}
