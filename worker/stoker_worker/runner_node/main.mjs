// An app's process: `node main.mjs <folder with node_modules> <what became of its own /tmp, as JSON>`.
//
// Plain Node, nothing else. The messages are those of runner/__main__.py: init, setup, run, tidy, park, unpark, describe,
// cancel and stop come in; ready, setup_done, partial, result, error, parked, unparked, description and failed go out. The launcher that
// started this process has seen to it that it ends with the daemon.

import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { BadApp, describe, loadApp } from "./app.mjs";
import { Decoder, FrameTooLarge, MAX_FRAME_BYTES, pack } from "./frames.mjs";
import { AppExit, isA, messageOf, printError } from "./thrown.mjs";
import { BadInput, BadOutput, build, dump, removeResults } from "./values.mjs";

/** Partial outputs go out at most this often; each is the whole output so far, so the latest is enough. */
const PARTIAL_EVERY_MS = 50;

/** Where the launcher puts the socket to the daemon. */
const SOCKET = 3;

const reallyExit = process.exit.bind(process);
const [env, told] = process.argv.slice(2);
const isolation = JSON.parse(told);

class Runner {
  #app = null;
  #home = "";
  #orders = [];
  #busy = false;
  #run = null; // {number, taskId, abort, ended}
  #results = [];

  constructor(socket) {
    this.socket = socket;
  }

  take(message) {
    if (message.type === "cancel") {
      this.#cancel(message);
      return;
    }
    this.#orders.push(message);
    if (!this.#busy) this.#work();
  }

  async #work() {
    this.#busy = true;
    try {
      while (this.#orders.length) await this.#serve(this.#orders.shift());
    } finally {
      this.#busy = false;
    }
  }

  async #serve(message) {
    if (message.type === "stop") {
      await this.#unload();
      reallyExit(0);
    } else if (message.type === "run") {
      this.#send(await this.#answerOf(message));
    } else if (message.type === "tidy") {
      removeResults(this.#results);
      this.#results = [];
    } else {
      await this.#beforeRuns(message);
    }
  }

  async #beforeRuns(message) {
    const steps = { init: () => this.#init(message), setup: () => this.#setup(message), describe: () => this.#describe(), park: () => this.#hook("park", "parked"), unpark: () => this.#hook("unpark", "unparked") };
    try {
      this.#send(JSON.stringify(await steps[message.type]()));
    } catch (error) {
      if (!isA(error, BadInput, BadApp)) printError(error);
      this.#send(JSON.stringify({ type: "failed", message: messageOf(error), fault: isA(error, BadInput) ? "input" : "app" }));
    }
  }

  async #init(message) {
    this.#app = await loadApp(message.app_dir, env);
    return { type: "ready", namespace: isolation.namespace, shared_because: isolation.shared_because, parks: this.#app.parks };
  }

  async #setup(message) {
    const values = await build(this.#app.setupSchema(), message.setup, "setup");
    await this.#app.object.setup?.(values, metadataOf(message.metadata));
    this.#home = process.cwd();
    return { type: "setup_done" };
  }

  async #hook(name, done) {
    await this.#app.object[name]();
    return { type: done };
  }

  async #describe() {
    return { type: "description", ...(await describe(this.#app, env)) };
  }

  async #answerOf(message) {
    this.#goHome();
    const run = (this.#run = { number: message.run, taskId: message.task_id, abort: new AbortController(), ended: null });
    const running = this.#call(message, run);
    run.ended = running.catch(() => undefined);
    try {
      const { output, files } = await running;
      this.#results = files.map((file) => file.path);
      return resultOf(run, output, files.map(seenOutside));
    } catch (error) {
      if (run.abort.signal.aborted) return errorOf(run, "cancelled", "cancelled");
      if (isA(error, BadInput)) return errorOf(run, "input", messageOf(error), error.fields);
      if (!isA(error, BadOutput, BadApp, FrameTooLarge)) printError(error);
      return errorOf(run, "app", messageOf(error));
    } finally {
      this.#run = null;
    }
  }

  /** To where setup left it; a run may have moved to what is gone now. */
  #goHome() {
    try {
      process.chdir(this.#home);
    } catch {
      // it was removed: the run finds out where it matters
    }
  }

  async #call(message, run) {
    const method = this.#app.find(message.function);
    const input = await build(this.#app.schema(message.function, "Input"), message.input, "input");
    let result = await method(input, metadataOf(message.metadata, run.abort.signal));
    if (isGenerator(result)) result = await this.#drain(result, run);
    return dump(result);
  }

  /** Take all outputs of a generator; each is the whole output so far, the last one is the result. */
  async #drain(outputs, run) {
    const { signal } = run.abort;
    const throttle = new Throttle((output) => this.#send(`{"type":"partial","run":${run.number},"output":${JSON.stringify(dump(output).output)}}`));
    let last;
    try {
      for (;;) {
        const step = await outputs.next();
        if (step.done) return step.value === undefined ? last : step.value;
        last = step.value;
        throttle.put(last);
        if (signal.aborted) {
          await outputs.return?.();
          throw signal.reason;
        }
        await new Promise(setImmediate); // lets a cancel in
      }
    } finally {
      throttle.drop();
    }
  }

  /** Ask the app first; then its signal is set. A run that heeds neither is ended by the daemon. */
  async #cancel(message) {
    const run = this.#run;
    if (run === null || run.taskId !== message.task_id) return;
    try {
      const ask = this.#app.object.onCancel ?? this.#app.object.on_cancel;
      if (typeof ask === "function" && (await ask.call(this.#app.object))) {
        await Promise.race([run.ended, new Promise((done) => setTimeout(done, message.grace_s * 500).unref())]);
      }
    } catch (error) {
      printError(error);
    }
    run.abort.abort();
  }

  async #unload() {
    try {
      await this.#app?.object.unload?.();
    } catch (error) {
      printError(error);
    }
  }

  #send(text) {
    this.socket.write(pack(text));
  }
}

/** Sends at most one output per PARTIAL_EVERY_MS; one that was held back follows by a timer. */
class Throttle {
  #sentAt = -Infinity;
  #timer = null;
  #last;

  constructor(send) {
    this.send = send;
  }

  put(output) {
    this.#last = output;
    const wait = this.#sentAt + PARTIAL_EVERY_MS - performance.now();
    if (wait <= 0) this.#flush();
    else this.#timer ??= setTimeout(() => this.#late(), wait);
  }

  drop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #flush() {
    this.drop();
    this.#sentAt = performance.now();
    this.send(this.#last);
  }

  #late() {
    try {
      this.#flush();
    } catch {
      // the result will say it, if it is still so
    }
  }
}

/** What apps get as metadata: attributes, `get` as in Python, and a signal that says when nobody wants the run. */
function metadataOf(fields, signal) {
  const metadata = { app_variant: "default", ...fields }; // older apps read it without asking whether it is there
  Object.defineProperty(metadata, "get", { value: (key, fallback) => metadata[key] ?? fallback });
  Object.defineProperty(metadata, "signal", { value: signal });
  return metadata;
}

function isGenerator(value) {
  return typeof value?.next === "function" && (typeof value[Symbol.asyncIterator] === "function" || typeof value[Symbol.iterator] === "function");
}

function resultOf(run, output, files) {
  const text = JSON.stringify({ type: "result", run: run.number, output, files });
  const size = Buffer.byteLength(text);
  if (size > MAX_FRAME_BYTES) {
    throw new FrameTooLarge(`The output is ${Math.floor(size / 1024 ** 2)} MB of JSON. Return large data as a File.`);
  }
  return text;
}

/** A file of a result, with its path as the daemon must open it, and as the app named it. */
function seenOutside(file) {
  return { ...file, path: outside(file.path), named: file.path };
}

function outside(name) {
  let real = name;
  try {
    real = fs.realpathSync(name);
  } catch {
    return name; // it does not exist; the daemon says so
  }
  const below = (folder) => real.startsWith(folder.endsWith(path.sep) ? folder : folder + path.sep);
  if (isolation.kept.some((kept) => real === kept || below(kept))) return real;
  const place = Object.keys(isolation.places).find(below);
  return place === undefined ? name : isolation.places[place] + real.slice(place.length);
}

function errorOf(run, fault, message, fields = []) {
  return JSON.stringify({ type: "error", run: run.number, fault, message, fields });
}

function endGroup() {
  process.kill(-process.pid, "SIGKILL"); // nobody is left who could use the result
}

process.exit = (code) => {
  throw new AppExit(`The app called exit(${code ?? process.exitCode ?? 0})`); // a run must not end the process
};
process.on("unhandledRejection", printError); // of work that the app left in the background
const socket = new net.Socket({ fd: SOCKET });
const runner = new Runner(socket);
const decoder = new Decoder();
socket.on("data", (data) => {
  decoder.feed(data);
  for (let text = decoder.next(); text !== null; text = decoder.next()) runner.take(JSON.parse(text));
});
socket.on("close", endGroup);
socket.on("error", endGroup);
