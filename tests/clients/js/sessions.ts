/** What the JavaScript client does with sessions; steps of `js_client.ts`. */
import type { Inference, TaskDTO } from "@inferencesh/sdk";

type Facts = Record<string, unknown>;
type Step = { [field: string]: any };

const POLL_MS = 50;
const PATIENCE_MS = 40_000;

/** The status and the code of what a call rejects with. */
async function refusal(call: () => Promise<unknown>): Promise<unknown> {
  try {
    await call();
  } catch (error: any) {
    const body = JSON.parse(error.responseBody);
    return [error.statusCode, body.type.split("/errors/")[1]];
  }
  return null;
}

export const sessionVerbs: Record<string, (client: Inference, step: Step, facts: Facts) => Promise<void>> = {
  /** Three calls of one session, then everything that may be asked of it while it lives and afterwards. */
  async session(client, step, facts) {
    const first: TaskDTO = await client.run({ ...step.params, session: "new" });
    facts.first = first;
    const id = (facts.id = first.session_id as string);
    const within = { ...step.params, session: id };
    facts.second = await client.run(within);
    const streamed: unknown[] = [];
    facts.streamed = streamed;
    facts.third = await client.run(within, { onUpdate: (update) => streamed.push(update.session_id) });
    const info = (await client.sessions.get(id)).data;
    facts.info = info;
    facts.kept = (await client.sessions.keepalive(id)).data;
    facts.list = (await client.sessions.list()).data.map((found) => found.id);
    facts.mismatch = await refusal(() => client.run({ ...within, app: step.other_app }));
    facts.leased = await refusal(() => client.run({ ...step.params, workers: [info.worker_id] }));
    await client.sessions.end(id);
    await client.sessions.end(id);
    facts.ended = await refusal(() => client.run(within));
    facts.ended_info = (await client.sessions.get(id)).data;
    facts.unknown = await refusal(() => client.sessions.get("sess_unknown"));
  },

  /** A session that nobody calls. */
  async expiry(client, step, facts) {
    const first = await client.run({ ...step.params, session: "new", session_timeout: 1 });
    const id = first.session_id as string;
    const deadline = Date.now() + PATIENCE_MS;
    while (Date.now() < deadline) {
      const info = (await client.sessions.get(id)).data;
      facts.info = info;
      if (info.status !== "active") break;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    facts.expired = await refusal(() => client.run({ ...step.params, session: id }));
  },
};
