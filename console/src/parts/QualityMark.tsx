/** What is to be said of a value: a sign and a word. */
import type { Quality } from "../api/model";
import { useTexts } from "../texts";

const SIGNS: Record<Quality, string> = { good: "✓", "out-of-range": "▲", retained: "R", late: "L", shifted: "~", none: "–" };

export function QualityMark({ quality }: { quality: Quality }) {
  const { t } = useTexts();
  return (
    <span className={`quality ${quality}`} title={t(`quality.${quality}.words`)}>
      <span aria-hidden="true">{SIGNS[quality]}</span> {t(`quality.${quality}`)}
    </span>
  );
}
