/** /t/{tenant}/log: who changed what, when, and what became of it. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useParams } from "@tanstack/react-router";

import { actionsQuery } from "../api/queries";
import { formatCount } from "../format/number";
import { visible } from "../format/visible";
import { Badge, Loaded, More, Nothing, Scroller } from "../parts/controls";
import { PageHead, usePageTitle } from "../parts/Layout";
import { Name, Time, Words } from "../parts/text";
import { useTexts } from "../texts";

const TONES = { queued: "plain", running: "plain", done: "good", failed: "bad" } as const;

export function LogPage() {
  const { t, maybe, language } = useTexts();
  usePageTitle(t("page.log"));
  const { tenant } = useParams({ from: "/user/t/$tenant/log" });
  const actions = useInfiniteQuery(actionsQuery(tenant));
  return (
    <>
      <PageHead title={t("page.log")} />
      <p className="lead">{t("log.lead")}</p>
      <Loaded of={actions}>
        {({ pages }) => {
          const found = pages.flatMap((page) => page.actions);
          if (found.length === 0) return <Nothing>{t("log.none")}</Nothing>;
          return (
            <Scroller label={t("page.log")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("time")}</th><th scope="col">{t("log.who")}</th><th scope="col">{t("log.what")}</th><th scope="col">{t("detail")}</th>
                    <th scope="col">{t("state")}</th><th scope="col">{t("log.result")}</th>
                  </tr>
                </thead>
                <tbody>
                  {found.map((action) => (
                    <tr key={action.action_id}>
                      <td><Time at={action.requested_at} /></td>
                      <td><Name text={action.requested_by} /></td>
                      <td>{maybe(`kind.${action.kind}`, action.kind)}</td>
                      <td className="long"><code>{Object.entries(action.arguments).map(([name, value]) => `${name}: ${visible(typeof value === "string" ? value : JSON.stringify(value))}`).join("\n")}</code></td>
                      <td><Badge tone={TONES[action.state]}>{t(`action.${action.state}`)}</Badge></td>
                      <td>
                        {action.total !== null && <>{t("action.of", { done: formatCount(action.done, language), total: formatCount(action.total, language) })}<br /></>}
                        <Words text={action.words} />
                        {action.finished_at && <><br /><small className="muted"><Time at={action.finished_at} /></small></>}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroller>
          );
        }}
      </Loaded>
      <More of={actions} />
    </>
  );
}
