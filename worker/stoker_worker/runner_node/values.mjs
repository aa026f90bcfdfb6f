// Values in and out of an app: inputs checked by its zod schemas, outputs made into JSON, files found in them.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { bounded, messageOf } from "./thrown.mjs";

const FILE_KEYS = new Set(["uri", "path", "content_type", "contentType", "size", "filename"]);
const MAX_DEPTH = 500;
const TYPES = {
  ".avif": "image/avif", ".bin": "application/octet-stream", ".css": "text/css", ".csv": "text/csv",
  ".flac": "audio/flac", ".gif": "image/gif", ".glb": "model/gltf-binary", ".html": "text/html",
  ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".js": "text/javascript", ".json": "application/json",
  ".m4a": "audio/mp4", ".md": "text/markdown", ".mov": "video/quicktime", ".mp3": "audio/mpeg",
  ".mp4": "video/mp4", ".ogg": "audio/ogg", ".pdf": "application/pdf", ".png": "image/png",
  ".svg": "image/svg+xml", ".txt": "text/plain", ".wav": "audio/wav", ".webm": "video/webm",
  ".webp": "image/webp", ".xml": "application/xml", ".zip": "application/zip",
};

/** The input does not fit the function; `fields` are [{loc, message}]. */
export class BadInput extends Error {
  constructor(message, fields) {
    super(message);
    this.fields = fields;
  }
}

/** What the app returned cannot be sent as JSON. */
export class BadOutput extends Error {}

/** Of a refusal; all those of a huge input would be no frame. */
const MAX_ISSUES = 100;

/** `value` as the schema wants it; raises BadInput. Without a schema it stays what it is. */
export async function build(schema, value, name) {
  if (typeof schema?.safeParseAsync !== "function") return value;
  let parsed;
  try {
    parsed = await schema.safeParseAsync(value);
  } catch (error) {
    const message = messageOf(error);
    throw new BadInput(`The ${name} is not valid: ${message}`, [{ loc: "", message }]);
  }
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.slice(0, MAX_ISSUES).map((issue) => ({ loc: bounded(issue.path.join(".")), message: bounded(`${issue.message}`) }));
  const text = fields.map((field) => `${field.loc || name}: ${field.message}`).join("; ");
  throw new BadInput(`The ${name} is not valid: ${text}`, fields);
}

/** {output, files}: a JSON value of what an app returned, and the files in it. */
export function dump(value) {
  const files = [];
  const output = dumpValue(value, "", files, []);
  if (output !== null && typeof output === "object" && output.output_meta === null) delete output.output_meta;
  return { output, files };
}

function dumpValue(value, pointer, files, above) {
  switch (typeof value) {
    case "string":
      return value.toWellFormed(); // half of a surrogate pair, as of a text that was cut, is no JSON to the daemon
    case "boolean":
      return value;
    case "number":
      if (!Number.isFinite(value)) throw new BadOutput(`The app's output ${field(pointer)} is ${value}; JSON has no such number`);
      return value;
    case "bigint":
      return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
    case "object":
      return value === null ? null : dumpObject(value, pointer, files, above);
    default: // undefined; functions and symbols, which JSON leaves out too
      return null;
  }
}

function dumpObject(value, pointer, files, above) {
  if (above.includes(value) || above.length > MAX_DEPTH) {
    throw new BadOutput("The app returned an output that is nested too deeply, or contains itself");
  }
  const below = [...above, value];
  if (isFile(value)) return dumpFile(value, pointer, files);
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    throw new BadOutput(`The app's output ${field(pointer)} is binary data, which is no JSON. Return it as a File`);
  }
  if (value instanceof Map) value = Object.fromEntries(value);
  if (value instanceof Set) value = [...value];
  if (Array.isArray(value)) return value.map((item, n) => dumpValue(item, `${pointer}/${n}`, files, below));
  if (typeof value.toJSON === "function") return dumpValue(value.toJSON(), pointer, files, below);
  const entries = Object.entries(value).filter(([, item]) => !["undefined", "function", "symbol"].includes(typeof item));
  return Object.fromEntries(entries.map(([key, item]) => [key.toWellFormed(), dumpValue(item, `${pointer}/${escaped(key)}`, files, below)]));
}

/** An SDK's File, by its class's name; or the map that it is serialised to. */
function isFile(value) {
  for (let kind = Object.getPrototypeOf(value); kind !== null; kind = Object.getPrototypeOf(kind)) {
    if (kind.constructor?.name === "File" && ("path" in value || "uri" in value)) return true;
  }
  const keys = Object.keys(value);
  const plain = Object.getPrototypeOf(value) === Object.prototype;
  return plain && typeof value.path === "string" && path.isAbsolute(value.path) && keys.length > 1 && keys.every((key) => FILE_KEYS.has(key));
}

/** A map like the SDK's own, without paths of this machine. The daemon uploads what lies on it. */
function dumpFile(file, pointer, files) {
  const shown = { content_type: file.content_type ?? file.contentType, size: file.size, filename: file.filename };
  if (typeof file.uri === "string" && /^https?:\/\//.test(file.uri)) {
    shown.uri = file.uri;
  } else if (file.path) {
    const found = outFile(path.resolve(file.path), shown, pointer);
    files.push(found);
    for (const key of Object.keys(shown)) shown[key] = found[key];
  } else {
    throw new BadOutput(`The app's output ${field(pointer)} is a File that is neither on disk nor on the web`);
  }
  return Object.fromEntries(Object.entries(shown).filter(([, item]) => item !== undefined && item !== null));
}

function outFile(name, shown, pointer) {
  const filename = shown.filename ?? path.basename(name);
  const size = fs.statSync(name, { throwIfNoEntry: false })?.size ?? 0; // the daemon names the field when it is missing
  const type = shown.content_type ?? TYPES[path.extname(filename).toLowerCase()] ?? "application/octet-stream";
  return { pointer, path: name, content_type: type, filename, size };
}

/** Remove files of a result that are temporary: they are stored. */
export function removeResults(names) {
  const temporary = [os.tmpdir(), process.env.TMPDIR].filter(Boolean).map((folder) => path.resolve(folder) + path.sep);
  for (const name of names) {
    if (!temporary.some((folder) => name.startsWith(folder))) continue;
    try {
      fs.rmSync(name, { force: true });
    } catch {
      // a folder, or somebody else's: it stays
    }
  }
}

function escaped(key) {
  return key.toWellFormed().replaceAll("~", "~0").replaceAll("/", "~1");
}

function field(pointer) {
  return pointer ? `'${pointer.slice(1).replaceAll("/", ".")}'` : "itself";
}
