/** Corrected rules: what reads the messages that the platform's rules refuse, and ending one. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { askFor, correctionsQuery, useWrite } from "../api/queries";
import { visible } from "../format/visible";
import { useTexts } from "../texts";
import { ActionProgress } from "./ActionProgress";
import { Button, Dialog, Loaded, ProblemNote, Scroller } from "./controls";
import { Name, Time } from "./text";

export function Corrections({ tenant, operator }: { tenant: string; operator: boolean }) {
  const { t, maybe } = useTexts();
  const corrections = useQuery(correctionsQuery(tenant));
  const [action, setAction] = useState<string | null>(null);
  const end = useWrite(async (correction_id: string) => {
    setAction(await askFor(tenant, { kind: "end-correction", arguments: { correction_id } }));
  }, [tenant, "corrections"]);
  return (
    <Loaded of={corrections}>
      {(found) =>
        found.length > 0 && (
          <section>
            <h2>{t("corrections")}</h2>
            <p className="note">{t("corrections.lead")}</p>
            <ProblemNote error={end.error} />
            <Scroller label={t("corrections")}>
              <table className="rows">
                <thead>
                  <tr>
                    <th scope="col">{t("time")}</th><th scope="col">{t("log.who")}</th><th scope="col">{t("replay.rule")}</th>
                    <th scope="col">{t("quarantine.reason")}</th><th scope="col">{t("corrections.received")}</th>
                    {operator && <th scope="col"><span className="unseen">{t("corrections.end")}</span></th>}
                  </tr>
                </thead>
                <tbody>
                  {found.map((each) => (
                    <tr key={each.correction_id}>
                      <td><Time at={each.created_at} /></td>
                      <td><Name text={each.created_by} /></td>
                      <td className="long"><code>{Object.entries(each.rule).map(([name, value]) => `${name}: ${visible(JSON.stringify(value))}`).join("\n")}</code></td>
                      <td>{each.reason ? maybe(`reason.${each.reason}`, each.reason) : t("quarantine.all")}</td>
                      <td>
                        <Time at={each.received_from} precision="minute" /> – {each.received_to ? <Time at={each.received_to} precision="minute" /> : t("corrections.from-now-on")}
                        {each.ended_by && <><br /><small className="muted">{t("corrections.ended-by")} <Name text={each.ended_by} /></small></>}
                      </td>
                      {operator && <td>{each.received_to === null && <Button disabled={end.isPending} onClick={() => end.mutate(each.correction_id)}>{t("corrections.end")}</Button>}</td>}
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroller>
            {action && <Dialog title={t("corrections.end")} onClose={() => setAction(null)}><ActionProgress tenant={tenant} action={action} /></Dialog>}
          </section>
        )
      }
    </Loaded>
  );
}
