/** What the JavaScript client does with flows; steps of `js_client.ts`. */
import type { Inference } from "@inferencesh/sdk";

type Facts = Record<string, unknown>;
type Step = { [field: string]: any };

const POLL_MS = 100;
const PATIENCE_MS = 60_000;
const OVER = 3; // completed, failed and cancelled are this and above

async function ended(client: Inference, id: string): Promise<any> {
  const deadline = Date.now() + PATIENCE_MS;
  let run: any = (await client.flowRuns.get(id)).data;
  while (run.status < OVER && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    run = (await client.flowRuns.get(id)).data;
  }
  return run;
}

/** The events of a stream until one says that the run is over. */
async function followed(client: Inference, id: string): Promise<any[]> {
  const source = (await client.flowRuns.stream(id))!;
  const seen: any[] = [];
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, PATIENCE_MS);
    source.onmessage = (event: any) => {
      seen.push({ id: event.lastEventId, ...JSON.parse(event.data) });
      if (seen[seen.length - 1].status >= OVER) {
        clearTimeout(timer);
        resolve();
      }
    };
  });
  source.close();
  return seen.map((run) => ({ event: run.id, status: run.status, nodes: run.node_statuses }));
}

export const flowVerbs: Record<string, (client: Inference, step: Step, facts: Facts) => Promise<void>> = {
  /** A flow made, changed, deployed, run in both ways, listed, copied and deleted. */
  async flow(client, step, facts) {
    const made: any = (await client.flows.create(step.flow)).data;
    facts.changed = (await client.flows.update(made.id, step.graph)).data;
    facts.app = (await client.flows.createApp(made.id)).data;
    facts.versions = (await client.flows.listVersions(made.id)).data;
    facts.listed = (await client.flows.list({ limit: 50 })).data.items.map((found: any) => found.id);
    facts.task = await client.run({ app: `local/${step.flow}`, infra: "private", input: step.input });
    const run: any = (await client.flowRuns.create(made.id, step.input)).data;
    facts.events = await followed(client, run.id);
    facts.run = await ended(client, run.id);
    facts.runs = (await client.flowRuns.list({ limit: 50 })).data.items.map((found: any) => found.id);
    const clone: any = (await client.flowRuns.clone(run.id)).data;
    facts.clone = await ended(client, clone.id);
    const copy: any = (await client.flows.duplicate(made.id)).data;
    facts.copy = copy;
    await client.flows.updateVisibility(made.id, "unlisted");
    facts.read = (await client.flows.get(made.id)).data;
    for (const id of [made.id, copy.id]) await client.flows.delete(id);
  },

  /** A run that is cancelled while its node runs. */
  async cancelled_flow(client, step, facts) {
    const run: any = (await client.flowRuns.create(step.flow, step.input)).data;
    await client.flowRuns.cancel(run.id);
    facts.run = await ended(client, run.id);
  },
};
