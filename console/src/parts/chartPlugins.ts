/** What is drawn on top of a line: marks by kind (each has a shape of its own), and the valid range. */
import type uPlot from "uplot";

import type { Mark } from "../api/model";
import { formatTime } from "../format/time";

export const MARK_KINDS = ["late", "conflict", "quarantined", "incident"] as const;
export type MarkKind = (typeof MARK_KINDS)[number];
const COLOURS: Record<MarkKind, string> = { late: "--late", conflict: "--conflict", quarantined: "--bad", incident: "--warn" };

interface Shown {
  marks: readonly Mark[];
  validMin: number | null;
  validMax: number | null;
}

export function marksPlugin(shown: () => Shown, colour: (name: string) => string): uPlot.Plugin {
  return {
    hooks: {
      draw: (chart) => {
        const { ctx, bbox } = chart;
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        limits(chart, shown(), colour("--limit"));
        const size = 5 * devicePixelRatio;
        for (const mark of shown().marks) {
          const x = chart.valToPos(Date.parse(mark.time), "x", true);
          if (x < bbox.left - size || x > bbox.left + bbox.width + size) continue;
          ctx.fillStyle = ctx.strokeStyle = colour(COLOURS[mark.kind]);
          ctx.globalAlpha = 0.35;
          ctx.fillRect(x - 0.5 * devicePixelRatio, bbox.top, devicePixelRatio, bbox.height);
          ctx.globalAlpha = 1;
          shape(ctx, mark.kind, x, bbox.top + bbox.height - size - 2, size);
        }
        ctx.restore();
      },
    },
  };
}

function limits(chart: uPlot, { validMin, validMax }: Shown, colour: string): void {
  const { ctx, bbox } = chart;
  ctx.strokeStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const limit of [validMin, validMax]) {
    if (limit === null) continue;
    const y = chart.valToPos(limit, "y", true);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.setLineDash([]);
}

/** late: a triangle, conflict: a diamond, quarantined: a square, incident: a circle. As in the legend (SVG). */
function shape(ctx: CanvasRenderingContext2D, kind: MarkKind, x: number, y: number, size: number): void {
  ctx.beginPath();
  if (kind === "incident") ctx.arc(x, y, size, 0, 2 * Math.PI);
  else {
    const corners = { late: [[0, -1], [1, 1], [-1, 1]], conflict: [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]], quarantined: [[-1, -1], [1, -1], [1, 1], [-1, 1]] }[kind];
    corners.forEach(([dx, dy], at) => ctx[at ? "lineTo" : "moveTo"](x + dx! * size, y + dy! * size));
    ctx.closePath();
  }
  ctx.fill();
}

/** Labels of the time axis in the viewer's zone: as fine as the step, with the day where a new one begins. */
export function ticks(splits: readonly number[], step: number): string[] {
  let day = "";
  return splits.map((split) => {
    const text = formatTime(split, step < 60_000 ? "second" : "minute");
    const [date, time] = [text.slice(5, 10), text.slice(11)];
    const fresh = date !== day;
    day = date;
    if (step >= 86400_000) return date;
    return fresh ? `${time}\n${date}` : time;
  });
}
