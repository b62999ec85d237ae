import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { launch, server, TENANT, URL_, Visitor } from "./console";

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

const connection = (page: Page) => page.locator("[data-connection]").getAttribute("data-connection");
const values = (page: Page) => page.locator(".series-row .c-value").allTextContents();

describe("live values", () => {
  it("change by themselves, stand still while paused, and go on", async () => {
    const visitor = await Visitor.arrive(browser);
    await visitor.logIn("viewer");
    const { page } = visitor;
    await page.locator(".series-row").first().waitFor();
    await expect.poll(() => connection(page), { timeout: 20_000 }).toMatch(/live|catching-up/);
    const before = await values(page);
    await expect.poll(() => values(page), { timeout: 30_000 }).not.toEqual(before);
    await page.getByRole("button", { name: "Pause" }).click();
    const paused = await values(page);
    await expect.poll(() => page.locator(".count").textContent(), { timeout: 30_000 }).not.toMatch(/: 0$/);
    expect(await values(page)).toEqual(paused);
    await page.getByRole("button", { name: "Go on" }).click();
    await expect.poll(() => values(page), { timeout: 10_000 }).not.toEqual(paused);
    await visitor.context.close();
  });

  it("come over one stream for all tabs of a browser: more than six tabs still load", async () => {
    const visitor = await Visitor.arrive(browser);
    const streams: string[] = [];
    visitor.context.on("request", (request) => request.url().includes("/live") && streams.push(request.url()));
    await visitor.logIn("viewer");
    const tabs = await Promise.all(Array.from({ length: 7 }, () => visitor.context.newPage()));
    for (const tab of tabs) {
      await tab.goto(`/t/${TENANT}`);
      await tab.locator(".series-row").first().waitFor();
      await expect.poll(() => connection(tab), { timeout: 20_000 }).toMatch(/live|catching-up/);
    }
    expect(streams).toEqual([]); // a shared worker's requests are no page's
    await visitor.context.close();
  });

  it("survive the server being killed: the loss is shown, then everything goes on by itself", async () => {
    const visitor = await Visitor.arrive(browser);
    await visitor.logIn("viewer");
    const { page } = visitor;
    await expect.poll(() => connection(page), { timeout: 20_000 }).toMatch(/live|catching-up/);
    const seen = page.evaluate(() => new Promise<string[]>((resolve) => {
      const states: string[] = [];
      const target = document.querySelector("[data-connection]")!;
      new MutationObserver(() => {
        const state = target.getAttribute("data-connection")!;
        states.push(state);
        // It may be behind Kafka for a while: that is a stream, too.
        if (states.includes("down") && ["live", "catching-up"].includes(state)) resolve(states);
      }).observe(target, { attributes: true });
    }));
    // The supervisor has it back in a second or two, and a loss is shown after three: so it stays away until the page has said so.
    await server("kill");
    await expect.poll(() => connection(page), { timeout: 60_000 }).toBe("down");
    await server("start");
    expect(await seen).toContain("down");
    const before = await values(page);
    await expect.poll(() => values(page), { timeout: 30_000 }).not.toEqual(before);
    expect((await page.request.get(`${URL_}/readyz`)).status()).toBe(200);
    await visitor.context.close();
  }, 300_000);
});
