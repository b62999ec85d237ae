/** The way of one message: where it was, when, and what was made of it. */
import { useQuery } from "@tanstack/react-query";

import { traceQuery } from "../api/queries";
import { useTexts } from "../texts";
import { Dialog, Loaded, Nothing } from "./controls";
import { Time, Words } from "./text";

export function TraceDialog(props: { tenant: string; partition: number; offset: string; onClose: () => void }) {
  const { t, maybe } = useTexts();
  const trace = useQuery(traceQuery(props.tenant, props.partition, props.offset));
  return (
    <Dialog wide title={t("trace.title", { partition: props.partition, offset: props.offset })} onClose={props.onClose}>
      <Loaded of={trace}>
        {(steps) =>
          steps.length === 0 ? (
            <Nothing>{t("trace.none")}</Nothing>
          ) : (
            <ol className="trace">
              {steps.map((step, at) => (
                <li key={at} className={step.ok === null ? "unknown" : step.ok ? "good" : "bad"}>
                  <strong>
                    <span aria-hidden="true">{step.ok === null ? "?" : step.ok ? "✓" : "✕"}</span> {maybe(`trace.step.${step.step}`, step.step)}
                    <span className="unseen"> {t(step.ok === null ? "trace.unknown" : step.ok ? "trace.good" : "trace.bad")}</span>
                  </strong>
                  {step.at && <span className="muted"><Time at={step.at} precision="millisecond" /></span>}
                  <p><Words text={step.words} /></p>
                </li>
              ))}
            </ol>
          )
        }
      </Loaded>
    </Dialog>
  );
}
