/** How far a write has come: queued, running, done or failed, with its words. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";

import { actionQuery, isOver } from "../api/queries";
import { formatCount } from "../format/number";
import { useTexts } from "../texts";
import { Badge, ProblemNote } from "./controls";
import { Words } from "./text";

const TONES = { queued: "plain", running: "plain", done: "good", failed: "bad" } as const;

export function ActionProgress({ tenant, action, onDone }: { tenant: string; action: string; onDone?: () => void }) {
  const { t, language } = useTexts();
  const found = useQuery(actionQuery(tenant, action));
  const client = useQueryClient();
  const over = isOver(found.data);
  useEffect(() => {
    if (!over) return;
    void client.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] === tenant && queryKey[1] !== "action" });
    if (found.data?.state === "done") onDone?.();
    // Once, when it is over.
  }, [over]);
  const state = found.data?.state ?? "queued";
  return (
    <div className="progress" role="status">
      <ProblemNote error={found.error} />
      <p>
        <Badge tone={TONES[state]}>{t(`action.${state}`)}</Badge>{" "}
        {found.data?.total != null && t("action.of", { done: formatCount(found.data.done, language), total: formatCount(found.data.total, language) })}
      </p>
      {!over && <progress aria-label={t("action.progress")} {...(found.data?.total ? { value: found.data.done, max: found.data.total } : {})} />}
      {found.data?.words && <p><Words text={found.data.words} /></p>}
    </div>
  );
}
