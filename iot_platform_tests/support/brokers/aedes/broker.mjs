// An MQTT 3.1.1 broker: `node broker.mjs <node_modules> <port> [<folder>]`. Sessions, queues and retained messages are in memory, or in
// LevelDB in the folder.
import { createRequire } from "node:module";
import { createServer } from "node:net";

const [modules, port, folder] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { Aedes } = require("aedes");

const options = { maxClientsIdLength: 1024 };
if (folder) {
  const { Level } = require("level");
  options.persistence = require("aedes-persistence-level")(new Level(folder));
}
const broker = await Aedes.createBroker(options);
createServer(broker.handle).listen(Number(port), "127.0.0.1");
