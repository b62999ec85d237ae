/** The last few values of a series as a small line. Its words are in the row beside it: here it is decoration. */
import { memo } from "react";

import type { Trend } from "../live/store";

const WIDTH = 120;
const HEIGHT = 28;

export function sparkPath(trend: Trend): string {
  const { time, value } = trend;
  if (time.length < 2) return "";
  const from = time[0]!;
  const span = time.at(-1)! - from || 1;
  const low = Math.min(...value);
  const height = Math.max(...value) - low;
  return value
    .map((each, at) => {
      const x = 2 + ((time[at]! - from) / span) * (WIDTH - 4);
      const y = height ? HEIGHT - 3 - ((each - low) / height) * (HEIGHT - 6) : HEIGHT / 2;
      return `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}

export const Sparkline = memo(function Sparkline({ path }: { path: string }) {
  return (
    <svg className="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true" focusable="false">
      <path d={path} />
    </svg>
  );
});
