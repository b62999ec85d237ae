/** The pages' addresses. Ids stay text: nothing in an address is ever read as a number. */
import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";

import { ApiProblem } from "./api/problem";
import { sessionQuery } from "./api/queries";
import { milliseconds } from "./format/time";
import { Missing, Root, TenantLayout, UserLayout, Waiting } from "./parts/Layout";
import { LoginPage } from "./pages/Login";
import { TenantsPage } from "./pages/Tenants";
import { LivePage } from "./pages/Live";

type Search = Record<string, unknown>;
const text = (search: Search, name: string): string | undefined => (typeof search[name] === "string" && search[name] ? search[name] : undefined);
const time = (search: Search, name: string): string | undefined => (milliseconds(text(search, name)) === null ? undefined : text(search, name));
/** Without the names that have no value: they would stand in the address. */
function only<T extends Record<string, string | undefined>>(search: T): { [K in keyof T]?: string } {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: string };
}

const root = createRootRouteWithContext<{ client: QueryClient }>()({ component: Root, notFoundComponent: Missing });

const login = createRoute({
  getParentRoute: () => root,
  path: "/login",
  component: LoginPage,
  validateSearch: (search: Search) => only({ return_to: text(search, "return_to"), problem: text(search, "problem") }),
});

const user = createRoute({
  getParentRoute: () => root,
  id: "user",
  component: UserLayout,
  beforeLoad: async ({ context, location }) => {
    try {
      await context.client.ensureQueryData(sessionQuery);
    } catch (error) {
      if (error instanceof ApiProblem && error.status === 401) throw redirect({ to: "/login", search: { return_to: location.href } });
    }
  },
});

const tenants = createRoute({ getParentRoute: () => user, path: "/", component: TenantsPage });
const admin = createRoute({ getParentRoute: () => user, path: "/admin", component: lazyRouteComponent(() => import("./pages/Admin"), "AdminPage") });
const tenant = createRoute({ getParentRoute: () => user, path: "/t/$tenant", component: TenantLayout });

const live = createRoute({
  getParentRoute: () => tenant,
  path: "/",
  component: LivePage,
  validateSearch: (search: Search) => only({ project: text(search, "project"), search: text(search, "search") }),
});

const deviceSearch = (search: Search) =>
  only({ metric: text(search, "metric"), from: time(search, "from"), to: time(search, "to"), range: text(search, "range") });
const DevicePage = lazyRouteComponent(() => import("./pages/Device"), "DevicePage");
const device = createRoute({ getParentRoute: () => tenant, path: "p/$project/d/$device", component: DevicePage, validateSearch: deviceSearch });
/** Measurements that name no device. */
const project = createRoute({ getParentRoute: () => tenant, path: "p/$project", component: DevicePage, validateSearch: deviceSearch });

const balance = createRoute({
  getParentRoute: () => tenant,
  path: "balance",
  component: lazyRouteComponent(() => import("./pages/Balance"), "BalancePage"),
  validateSearch: (search: Search) => only({ hours: text(search, "hours") }),
});
const quarantine = createRoute({
  getParentRoute: () => tenant,
  path: "quarantine",
  component: lazyRouteComponent(() => import("./pages/Quarantine"), "QuarantinePage"),
  validateSearch: (search: Search) => only({ reason: text(search, "reason"), from: time(search, "from"), to: time(search, "to") }),
});
const incidents = createRoute({
  getParentRoute: () => tenant,
  path: "incidents",
  component: lazyRouteComponent(() => import("./pages/Incidents"), "IncidentsPage"),
  validateSearch: (search: Search) => only({ state: text(search, "state"), rules: text(search, "rules") }),
});
const series = createRoute({
  getParentRoute: () => tenant,
  path: "series",
  component: lazyRouteComponent(() => import("./pages/Series"), "SeriesPage"),
  validateSearch: (search: Search) => only({ project: text(search, "project"), search: text(search, "search") }),
});
const log = createRoute({ getParentRoute: () => tenant, path: "log", component: lazyRouteComponent(() => import("./pages/Log"), "LogPage") });

const tree = root.addChildren([
  login,
  user.addChildren([tenants, admin, tenant.addChildren([live, device, project, balance, quarantine, incidents, series, log])]),
]);

export function makeRouter(client: QueryClient) {
  return createRouter({
    routeTree: tree,
    context: { client },
    defaultPreload: "intent",
    defaultPendingComponent: Waiting,
    scrollRestoration: true,
    // The router's own reads ids as numbers and writes quotation marks around them.
    parseSearch: (search) => Object.fromEntries(new URLSearchParams(search)),
    stringifySearch: (search) => {
      const query = new URLSearchParams(Object.entries(search).filter(([, value]) => typeof value === "string") as [string, string][]);
      return query.size ? `?${query}` : "";
    },
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
