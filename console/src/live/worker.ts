/** The shared worker: the hub of all tabs of this browser. */
import { Hub } from "./hub";
import type { ToHub } from "./messages";

const hub = new Hub();

(globalThis as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = (event) => {
  const port = event.ports[0]!;
  const take = hub.join((message) => port.postMessage(message));
  port.onmessage = (message: MessageEvent<ToHub>) => take(message.data);
};
