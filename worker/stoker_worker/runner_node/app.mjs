// Loads an app's folder and says what is in it: the App object, its functions, their schemas.

import fs from "node:fs";
import module from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { syncHooks } from "./hooks.mjs";
import { messageOf } from "./thrown.mjs";

const ENTRIES = ["inference.js", "src/inference.js", "inference.mjs", "src/inference.mjs"];
const NOT_FUNCTIONS = new Set(["constructor", "setup", "unload", "onCancel", "on_cancel", "park", "unpark"]);
const FILE_MARKER = Symbol.for("inferencesh.fileSchema");
const FROM_ENVIRONMENT = "stoker-environment.mjs";

/** The folder is no app, or lacks what was asked for. */
export class BadApp extends Error {}

/** An app that is loaded: its object and what its module exports. */
export class LoadedApp {
  constructor(exported, folder) {
    this.exports = exported;
    this.folder = folder;
    this.object = new exported.App();
  }

  /** Names of the functions: `run`, and public methods with an exported input schema (TalkInput of talk). */
  functions() {
    const names = [];
    for (let kind = Object.getPrototypeOf(this.object); kind && kind !== Object.prototype; kind = Object.getPrototypeOf(kind)) {
      names.push(...Object.getOwnPropertyNames(kind));
    }
    const methods = [...new Set(names)].filter((name) => !name.startsWith("_") && !NOT_FUNCTIONS.has(name));
    return methods.filter((name) => typeof this.object[name] === "function" && (name === "run" || this.schema(name, "Input")));
  }

  /** The method that serves `name`. */
  find(name) {
    const known = this.functions();
    if (!known.includes(name)) {
      throw new BadApp(`the app has no function '${name}'; it has ${known.sort().join(", ") || "none"}`);
    }
    return this.object[name].bind(this.object);
  }

  /** The schema that is exported for a function: RunInput of run. */
  schema(name, kind) {
    return this.exports[name[0].toUpperCase() + name.slice(1) + kind];
  }

  /** Whether it can leave the devices and come back: it has both methods. */
  get parks() {
    return ["park", "unpark"].every((name) => typeof this.object[name] === "function");
  }

  setupSchema() {
    return this.exports.AppSetup ?? this.exports.SetupInput;
  }
}

/** Import the folder and make its App. Its packages come from `env`. */
export async function loadApp(folder, env) {
  const real = fs.realpathSync(folder);
  const entry = ENTRIES.map((name) => path.join(real, name)).find((name) => fs.existsSync(name));
  if (entry === undefined) throw new BadApp(`the app's folder has no ${ENTRIES[0]}`);
  const data = { appUrl: pathToFileURL(real + path.sep).href, envUrl: pathToFileURL(path.join(env, "package.json")).href };
  if (typeof module.registerHooks === "function") module.registerHooks(syncHooks(data));
  else module.register("./hooks.mjs", import.meta.url, { data });
  process.argv.splice(1, process.argv.length, entry);
  const exported = await import(pathToFileURL(entry).href);
  if (typeof exported.App !== "function") throw new BadApp(`${path.basename(entry)} exports no class App`);
  return new LoadedApp(exported, real);
}

/** Functions with their schemas, and the schema of the setup; JSON values. */
export async function describe(app, env) {
  const toJson = await schemaWriter(env);
  const functions = {};
  for (const name of app.functions()) {
    const input = app.schema(name, "Input");
    functions[name] = {
      name,
      description: input?.description ?? "",
      input_schema: toJson(input, "input"),
      output_schema: toJson(app.schema(name, "Output"), "output"),
    };
  }
  return { functions, setup_schema: toJson(app.setupSchema(), "input") };
}

/** How schemas are written with what the environment has: zod 4 does it itself, for zod 3 another package does. */
async function schemaWriter(env) {
  const from = module.createRequire(path.join(env, FROM_ENVIRONMENT));
  const load = (name) => {
    try {
      return from(name);
    } catch {
      return undefined; // it is not there, or no module that can be required
    }
  };
  const zod = load("zod");
  const toJSONSchema = zod?.toJSONSchema ?? zod?.z?.toJSONSchema;
  const zodToJsonSchema = load("zod-to-json-schema")?.zodToJsonSchema;
  return (schema, io) => {
    if (schema === undefined || schema === null) return {};
    try {
      const written = schema._zod && toJSONSchema ? toJSONSchema(schema, { io, unrepresentable: "any", override }) : zodToJsonSchema?.(schema);
      const { $schema: _, ...rest } = written ?? {};
      return rest;
    } catch (error) {
      console.error(`no schema: ${messageOf(error)}`);
      return {};
    }
  };
}

/** A field made by the SDK's createFileSchema is a file. */
function override({ zodSchema, jsonSchema }) {
  if (zodSchema._zod?.def?.[FILE_MARKER] || zodSchema._def?.[FILE_MARKER]) {
    for (const key of Object.keys(jsonSchema)) if (key !== "description") delete jsonSchema[key];
    Object.assign(jsonSchema, { type: "string", format: "file" });
  }
}
