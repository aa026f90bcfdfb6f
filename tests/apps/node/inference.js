import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { File, createFileSchema, textMeta } from "@inferencesh/app";
import { z } from "zod";
import { word } from "./helper.js";

export const AppSetup = z.object({ model: z.string().default("small") });

export const RunInput = z.object({
  do: z.string(),
  text: z.string().default("").describe("What to say."),
  count: z.number().int().default(0),
  image: createFileSchema(z).optional(),
}).describe("Do a thing.");
export const RunOutput = z.object({ got: z.string().nullable() });

export const ShoutInput = z.object({ text: z.string() });
export const ShoutOutput = z.object({ text: z.string() });

function fail() {
  throw Object.create(null);
}

class Unreadable extends Error {
  get name() { fail(); }
  get message() { fail(); }
  get stack() { fail(); }
  get [Symbol.toStringTag]() { fail(); }
}

/** Values that throw again when somebody looks at them, or that are no words. */
const THROWN = {
  bare: () => Object.create(null),
  noText: () => ({ toString: fail, [Symbol.toPrimitive]: fail }),
  unreadable: () => new Unreadable(),
  proxy: () => new Proxy(new Error("inside"), { get: fail, getPrototypeOf: fail, has: fail, ownKeys: fail }),
  revoked: () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy; },
  symbol: () => Symbol("s"),
  object: () => ({ code: 3n }),
  noWords: () => Object.assign(new Error(), { message: { code: 3n }, stack: Symbol("s") }),
  half: () => new Error("half of a pair: \ud83d"),
  long: () => new Error("long ".repeat(14_000_000)),
  nothing: () => undefined,
};

export class App {
  runs = 0;

  async setup(config, metadata) {
    console.log("setup prints");
    this.model = config.model;
    this.variant = metadata.get("app_variant", "none");
  }

  async run(input, metadata) {
    this.runs += 1;
    return this[`_${input.do}`](input, metadata);
  }

  async shout(input) {
    return { text: input.text.toUpperCase() };
  }

  helper() {}

  onCancel() {
    console.log("onCancel was called");
    this.cancelled?.();
    return Boolean(this.cancelled);
  }

  async unload() {
    console.log("unload prints");
  }

  _echo(input) {
    return { got: input.text, runs: this.runs, word, model: this.model, variant: this.variant };
  }

  _know(_input, metadata) {
    return {
      env: process.env,
      cwd: process.cwd(),
      task: metadata.task_id,
      stdin: fs.readFileSync(0, "utf8"),
      childFds: execFileSync("ls", ["/proc/self/fd"], { encoding: "utf8" }).trim().split("\n").length,
      argv: process.argv,
    };
  }

  _nothing() {}

  _moveAndRemove() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "left-"));
    process.chdir(folder);
    fs.rmdirSync(folder);
  }

  _raise(input) {
    throw new Error(input.text);
  }

  _throw(input) {
    throw THROWN[input.text]();
  }

  async _rejects(input) {
    await Promise.reject(THROWN[input.text]());
  }

  async *_yieldsAndThrows(input) {
    yield { number: 1 };
    throw THROWN[input.text]();
  }

  _returns(input) {
    return { get value() { throw THROWN[input.text](); } };
  }

  _leavesRejected(input) {
    Promise.reject(THROWN[input.text]());
    return "left";
  }

  async *_passesTheUnreadable(input) {
    yield { number: 1 };
    yield this._returns(input);
    await new Promise((done) => setTimeout(done, 200));
    return { number: 2 };
  }

  async *_cuts() {
    yield "ab😀".slice(0, 3);
    yield { ["😀".slice(1)]: ["😀".slice(0, 1)] };
  }

  _folder() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "result-"));
    return { file: File.fromPath(folder) };
  }

  _exit() {
    process.exit(3);
  }

  _die() {
    process.kill(process.pid, "SIGKILL");
  }

  _meta() {
    return { got: "x", output_meta: { outputs: [textMeta({ tokens: 3 })] } };
  }

  _nan() {
    return { scores: [1, NaN] };
  }

  _circle() {
    const circle = {};
    circle.self = circle;
    return circle;
  }

  _binary() {
    return { data: Buffer.from("x") };
  }

  _file() {
    const name = path.join(os.tmpdir(), "a.txt");
    fs.writeFileSync(name, "hello");
    fs.writeFileSync("/tmp/fixed.png", "png");
    return {
      files: [File.fromPath(name), { path: "/tmp/fixed.png", content_type: "image/png", size: 3, filename: "fixed.png" }],
      "a/b": new File({ path: "/does/not/exist.png" }),
      far: new File({ uri: "https://example.org/x.png", contentType: "image/png" }),
    };
  }

  async _given(input) {
    return { got: input.image.filename, path: await input.image.getPath() };
  }

  async *_partials(input) {
    for (let number = 0; number < input.count; number += 1) yield { number };
  }

  async _listen() {
    const heard = new Promise((done) => (this.cancelled = done));
    console.log("waiting");
    await heard;
    this.cancelled = undefined;
    return "heard";
  }

  async *_stream() {
    for (let number = 0; ; number += 1) {
      if (number === 1) console.log("waiting");
      yield { number };
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  async _signal(_input, metadata) {
    const ended = new Promise((_, fail) => metadata.signal.addEventListener("abort", () => fail(new Error("aborted"))));
    console.log("waiting");
    await ended;
  }

  _block() {
    console.log("waiting");
    for (;;);
  }

  _leave() {
    return spawn("sleep", ["600"], { stdio: "ignore" }).pid;
  }

  _reject() {
    Promise.reject(new Error("in the background"));
    return "left";
  }
}
