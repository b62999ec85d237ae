/** Chromium on the running console: one browser, users logged in, and what every page must hold. */
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { expect } from "vitest";

function named(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests by \`make test-console\``);
  return value;
}

export const URL_ = named("CONSOLE_URL");
export const TENANT = named("CONSOLE_TENANT");
export const PROJECT = named("CONSOLE_PROJECT");
export const DEVICE = named("CONSOLE_DEVICE");
/** Of each of the users viewer, operator and admin. */
export const PASSWORD = named("CONSOLE_PASSWORD");
const CONTROL = named("CONSOLE_CONTROL");
export const SHOTS = process.env.CONSOLE_SHOTS ?? join(import.meta.dirname, "..", "shots");

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CHROMIUM = process.env.CONSOLE_CHROMIUM ?? "/usr/bin/chromium";

export async function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}

/** kill: kill -9, and it stays away; start: until it is ready. */
export async function server(what: "kill" | "start"): Promise<void> {
  const answer = await fetch(`${CONTROL}/${what}`, { method: "POST" });
  expect(answer.status, await answer.text()).toBe(204);
}

export interface Looks {
  language?: "en" | "zh-CN";
  theme?: "light" | "dark";
  phone?: boolean;
}

/** A browser profile of its own that notes errors: of scripts, of the content security policy, of requests. */
export class Visitor {
  readonly errors: string[] = [];

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
  ) {}

  static async arrive(browser: Browser, { language = "en", theme = "light", phone = false }: Looks = {}): Promise<Visitor> {
    const context = await browser.newContext({
      baseURL: URL_, locale: language, colorScheme: theme, timezoneId: "Asia/Shanghai",
      viewport: phone ? { width: 390, height: 844 } : { width: 1440, height: 900 }, deviceScaleFactor: phone ? 2 : 1,
      permissions: ["clipboard-read", "clipboard-write"], reducedMotion: "reduce",
    });
    const page = await context.newPage();
    const visitor = new Visitor(context, page);
    page.on("pageerror", (error) => visitor.errors.push(`script: ${error.message}`));
    page.on("dialog", (dialog) => {
      visitor.errors.push(`a name or payload was run: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("console", (message) => {
      // A 401 of GET /session is how the page learns that nobody is logged in.
      if (message.type() === "error" && !/401|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED/.test(message.text())) visitor.errors.push(`console: ${message.text()}`);
    });
    return visitor;
  }

  async logIn(name: string, path = `/t/${TENANT}`): Promise<void> {
    await this.page.goto(path);
    await this.page.locator("input[autocomplete=username]").fill(name);
    await this.page.locator("input[type=password]").fill(PASSWORD);
    await this.page.locator("form button[type=submit]").click();
    await this.page.waitForURL((address) => address.pathname === path.split("?")[0]);
  }

  /** axe finds nothing, nothing is wider than the page, and nothing went wrong. */
  async check(): Promise<void> {
    // Not by a script tag: the policy refuses it.
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(async () => {
      const { axe } = window as unknown as { axe: { run: (of: Document, options: object) => Promise<{ violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] }> } };
      const { violations } = await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
      return violations.map((each) => `${each.id}: ${each.nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary ?? ""}`).join(" | ")}`);
    });
    expect(found).toEqual([]);
    expect(await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)).toBeLessThanOrEqual(0);
    expect(this.errors).toEqual([]);
  }

  /** What stands on the page in English and is no name, id, setting or payload: three words and more. */
  async english(): Promise<string[]> {
    return this.page.evaluate(() => {
      const found: string[] = [];
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const text = walker.currentNode.textContent ?? "";
        if (/[A-Za-z]{2,}(?: [a-z]{1,}){2,}/.test(text) && !walker.currentNode.parentElement?.closest("code, pre, bdi, script, style")) found.push(text);
      }
      return found;
    });
  }

  async shoot(name: string): Promise<void> {
    mkdirSync(SHOTS, { recursive: true });
    await this.page.screenshot({ path: join(SHOTS, `${name}.png`) });
  }
}
