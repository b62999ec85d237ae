/** An answer of the API that is an error. */

export interface FieldProblem {
  field: string;
  message: string;
}

interface ProblemBody {
  type: string;
  detail: string;
  errors: FieldProblem[] | null;
  oidc: { enabled: boolean; label: string } | null;
}

export class ApiProblem extends Error {
  constructor(
    /** The kind: the end of the problem's type; `unreachable` where no answer came. */
    readonly slug: string,
    readonly status: number,
    readonly detail: string,
    readonly errors: FieldProblem[] | null,
    /** Seconds to wait before another try, where the answer says so. */
    readonly retryAfter: number | null,
    /** Of a 401: whether one may log in through a provider. */
    readonly oidc: { enabled: boolean; label: string } | null = null,
  ) {
    super(detail || slug);
  }

  static of(body: unknown, response: Response): ApiProblem {
    const told = (typeof body === "object" && body !== null ? body : {}) as Partial<ProblemBody>;
    const slug = told.type?.startsWith("/problems/") ? told.type.slice("/problems/".length) : "internal-error";
    const wait = Number(response.headers.get("Retry-After") ?? NaN);
    return new ApiProblem(slug, response.status, told.detail ?? "", told.errors ?? null, Number.isFinite(wait) ? wait : null, told.oidc ?? null);
  }

  /** What is wrong with one field of the body, or nothing. */
  field(name: string): string | undefined {
    return this.errors?.find((error) => error.field === name || error.field.endsWith(`.${name}`))?.message;
  }
}

/** Whether asking again may help: not where the API said what is wrong with the request. */
export function mayRetry(failures: number, error: Error): boolean {
  return failures < 2 && (!(error instanceof ApiProblem) || error.status === 0 || error.status === 429 || error.status >= 502);
}
