/** The API's client: typed by its OpenAPI document; the CSRF token goes along by itself, and errors are thrown as ApiProblem. */
import createClient, { type Middleware } from "openapi-fetch";

import { ApiProblem } from "./problem";
import type { paths } from "./schema";

let csrfToken = "";

/** What GET /session said; every write sends it. */
export function setCsrfToken(token: string): void {
  csrfToken = token;
}

const csrf: Middleware = {
  onRequest({ request }) {
    if (request.method !== "GET" && csrfToken) request.headers.set("X-CSRF-Token", csrfToken);
    return request;
  },
};

export const api = createClient<paths>({ baseUrl: "", credentials: "same-origin" });
api.use(csrf);

/** What the API answered, or the ApiProblem that it told. */
export async function answerOf<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  let answer;
  try {
    answer = await call;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiProblem("unreachable", 0, "", null, null);
  }
  const { data, error, response } = answer;
  if (!response.ok) throw ApiProblem.of(error, response);
  return data as T;
}
