/** Whether values come, and since when not. */
import { formatAge } from "../format/time";
import type { Health } from "../live/messages";
import { useTexts } from "../texts";
import { Badge } from "./controls";
import { useNow } from "./useNow";

const TONES = { live: "good", "catching-up": "warn", silent: "warn", stalled: "bad", down: "bad", "logged-out": "bad", connecting: "plain" } as const;

export function ConnectionNote({ health }: { health: Health }) {
  const { t, language } = useTexts();
  const now = useNow();
  const { connection } = health;
  const age = formatAge(now - health.since, language);
  return (
    <span className="connection" role="status" aria-live="polite" data-connection={connection}>
      <Badge tone={TONES[connection]}>{t(`connection.${connection}`)}</Badge>
      {["down", "silent", "stalled"].includes(connection) && <span className="muted" aria-hidden="true">{t("connection.since", { age })}</span>}
      {connection === "catching-up" && <span className="muted">{t("connection.lag", { count: health.lag ?? 0 })}</span>}
    </span>
  );
}
