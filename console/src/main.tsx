/** Starts the page. */
import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { ApiProblem, mayRetry } from "./api/problem";
import { startTheme } from "./parts/theme";
import { makeRouter } from "./router";
import { startTexts } from "./texts";
import "./styles/theme.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/pages.css";

startTheme();
startTexts();

const client: QueryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error) => {
      if (error instanceof ApiProblem && error.slug === "not-logged-in") void toLogin();
    },
  }),
  defaultOptions: { queries: { retry: mayRetry, refetchOnWindowFocus: true } },
});
const router = makeRouter(client);

async function toLogin(): Promise<void> {
  const { pathname, href } = router.state.location;
  if (pathname !== "/login") await router.navigate({ to: "/login", search: { return_to: href } });
}

createRoot(document.getElementById("page")!).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  </StrictMode>,
);
