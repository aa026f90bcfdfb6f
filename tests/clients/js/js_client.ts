/**
 * Drive `@inferencesh/sdk`, and print what it saw as JSON.
 *
 * Reads a plan from stdin, as py_client.py does: {base_url, key, steps: [{name, do, ...}]}.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import "./globals"; // before the SDK
import { Inference, type TaskDTO } from "@inferencesh/sdk";

import { flowVerbs } from "./flows";
import { sessionVerbs } from "./sessions";

type Facts = Record<string, unknown>;
type Step = { name: string; do: string; key?: string; base_url?: string; [field: string]: any };

const POLL_MS = 50; // between two reads of a task
const PATIENCE_MS = 40_000; // for a task to end; the whole driver is bounded by its caller

async function download(uri: string): Promise<Buffer> {
  const answer = await fetch(uri);
  if (!answer.ok) throw new Error(`HTTP ${answer.status} for ${uri}`);
  return Buffer.from(await answer.arrayBuffer());
}

function onceRunning(client: Inference, facts: Facts): (update: TaskDTO) => void {
  let asked = false;
  return (update) => {
    if (asked || update.status !== 7 || !update.logs?.length) return;
    asked = true;
    facts.cancelled = update.id;
    client.tasks.cancel(update.id).catch((error) => (facts.cancel_error = String(error)));
  };
}

const verbs: Record<string, (client: Inference, step: Step, facts: Facts) => Promise<void>> = {
  /** Run and wait, by the stream or (`stream: false`) by polling the status. */
  async run(client, step, facts) {
    facts.result = await client.run(step.params, step.options ?? {});
  },

  /** Run without waiting, then read the task until it has ended. */
  async get(client, step, facts) {
    const handle = await client.run(step.params, { wait: false });
    facts.handle = handle;
    const deadline = Date.now() + PATIENCE_MS;
    while (Date.now() < deadline) {
      facts.result = (await client.tasks.get(handle.id)).data;
      if (step.terminal.includes((facts.result as TaskDTO).status)) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  },

  /** Follow the updates; with `cancel_when_logged`, cancel at the first log line of the running app. */
  async stream(client, step, facts) {
    const updates: TaskDTO[] = [];
    facts.updates = updates;
    const cancel = step.cancel_when_logged ? onceRunning(client, facts) : () => {};
    facts.result = await client.run(step.params, {
      onUpdate(update) {
        updates.push(update);
        cancel(update);
      },
    });
  },

  /** Follow the updates and the increments of the output. */
  async deltas(client, step, facts) {
    const updates: TaskDTO[] = [];
    const deltas: Facts[] = [];
    facts.updates = updates;
    facts.deltas = deltas;
    facts.result = await client.run(step.params, {
      onUpdate: (update) => void updates.push(update),
      onDelta: (delta, seq) => void deltas.push({ delta, seq }),
    });
  },

  /** Wait for a task that has ended already, and cancel it: neither may reject. */
  async wait_again(client, step, facts) {
    const first = await client.run(step.params);
    facts.result = await client.tasks.watch({ id: first.id, status: 1 }).done;
    await client.tasks.cancel(first.id);
  },

  /** The server-sent events that `tasks.stream` opens, up to the first terminal state. */
  async events(client, step, facts) {
    const task = await client.run(step.params, { wait: false });
    const source = await client.tasks.stream(task.id);
    const seen: Facts[] = [];
    facts.updates = seen;
    await new Promise<void>((resolve, reject) => {
      const give_up = setTimeout(() => reject(new Error("no ending")), PATIENCE_MS);
      const take = (event: MessageEvent) => {
        const update = JSON.parse(event.data);
        seen.push({ status: update.status, output: update.output, event_id: event.lastEventId });
        if (update.status >= 10) {
          clearTimeout(give_up);
          source!.close();
          resolve();
        }
      };
      source!.addEventListener("message", take);
      source!.addEventListener("update", take);
    });
  },

  /** What the tasks API of the SDK tells of a finished task. */
  async look(client, step, facts) {
    const task = await client.run(step.params);
    facts.logs = (await client.tasks.getLogs(task.id)).data;
    facts.timings = (await client.tasks.getTimings(task.id)).data;
    facts.list = (await client.tasks.list({ limit: 2 })).data;
    await client.tasks.cancel(task.id);
    await client.tasks.delete(task.id);
    facts.deleted = await client.tasks.get(task.id).then(
      () => "still there",
      (error) => error.statusCode,
    );
  },

  /** Make, list, change, reveal and delete a secret. */
  async secrets(client, step, facts) {
    const api = (client as any).secrets;
    const kept = async (name: string, call: Promise<unknown>) => {
      facts[name] = await call.catch((error) => ({ failed: error.statusCode ?? String(error) }));
    };
    await kept("created", api.create({ key: step.key_name, value: step.value, description: "made by a client" }));
    await kept("listed", api.list({}));
    await kept("updated", api.update(step.key_name, { value: step.value + "2" }));
    await kept("revealed", api.reveal?.(step.key_name) ?? api.getValue(step.key_name));
    await kept("deleted", api.delete(step.key_name));
    await kept("left", api.list({}));
  },

  /** What the apps API of the SDK does with an app that exists, and with a copy of it. */
  async apps(client, step, facts) {
    const list = (await client.apps.list({ limit: 100 })).data;
    facts.listed = list.items.map((app) => `${app.namespace}/${app.name}`);
    const app = (await client.apps.getByName(step.app)).data;
    facts.app = app;
    facts.same = (await client.apps.get(app.id)).data.id === app.id;
    facts.by_version = (await client.apps.getByVersionId(app.id, app.version_id)).data;
    facts.versions = (await client.apps.listVersions(app.id)).data;
    const copy = (await client.apps.duplicate(app.id)).data;
    facts.copy = copy;
    await client.apps.update(copy.id, { name: copy.name, title: "A copy" });
    await client.apps.updateVisibility(copy.id, "public");
    await client.apps.updateStatus(copy.id, "deprecated", "Use the first one.");
    await client.apps.saveLicense(copy.id, "Be kind.");
    await client.apps.setCurrentVersion(copy.id, app.version_id);
    facts.license = (await client.apps.getLicense(copy.id)).data.license;
    facts.changed = (await client.apps.get(copy.id)).data;
    await client.apps.delete(copy.id);
    facts.deleted = await client.apps.get(copy.id).then(
      () => "still there",
      (error) => error.statusCode,
    );
  },

  /** Upload a file under its name, then download it from its address without a key. */
  async upload(client, step, facts) {
    const blob = new Blob([readFileSync(step.path)], { type: "image/png" });
    const record = await client.files.upload(blob, { filename: step.filename });
    facts.result = record;
    facts.sha256 = createHash("sha256").update(await download(record.uri)).digest("hex");
  },

  /** Run an app on a blob that the SDK uploads by itself, and download what it gives back. */
  async run_on_file(client, step, facts) {
    const blob = new Blob([readFileSync(step.path)], { type: "image/png" });
    const task = await client.run({ ...step.params, input: { ...step.params.input, [step.field]: blob } });
    facts.result = task;
    const output = (task.output as any)[step.output_field];
    facts.head = (await download(output.uri ?? output)).subarray(0, 8).toString("hex");
  },
};

Object.assign(verbs, sessionVerbs, flowVerbs);

async function main(): Promise<void> {
  const plan = JSON.parse(readFileSync(0, "utf8"));
  const facts: Record<string, Facts> = {};
  for (const step of plan.steps as Step[]) {
    const known: Facts = (facts[step.name] = {});
    const client = new Inference({ apiKey: step.key ?? plan.key, baseUrl: step.base_url ?? plan.base_url });
    try {
      await verbs[step.do](client, step, known);
    } catch (error: any) {
      const errors = (error.errors ?? []).map((entry: any) => ({
        type: entry.type,
        key: entry.key,
        message: entry.message,
        action: entry.action?.type ?? null,
        provider: entry.action?.provider ?? null,
      }));
      known.error = { type: error.name, text: error.message, status_code: error.statusCode ?? null, errors };
    }
  }
  process.stdout.write(JSON.stringify(facts));
}

await main();
