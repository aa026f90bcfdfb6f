/** Drive the agents of `@inferencesh/sdk`, and print what was seen as JSON; plan and facts are those of agent_client.py. */
import { readFileSync } from "node:fs";

import "./globals"; // before the SDK
import { inference, number, tool, type ChatDTO } from "@inferencesh/sdk";

type Step = { [field: string]: any };

const POLL_MS = 50;
const PATIENCE_MS = 40_000;
const plan = JSON.parse(readFileSync(0, "utf8"));
const client = inference({ apiKey: plan.key, baseUrl: plan.base_url });

function agentOf(step: Step) {
  const config = { ...step.config };
  if (step.calculator) {
    let made = tool("calculator")
      .describe("Multiplies two numbers")
      .param("a", number("The first"))
      .param("b", number("The second"));
    if (step.decide) made = made.requireApproval();
    config.tools = [made.build()];
  }
  return client.agent(config);
}

function pictureOf(uri: string): Blob {
  return new Blob([Buffer.from(uri.split(",")[1], "base64")], { type: "image/png" });
}

class Talker {
  readonly facts: Step = { messages: [], calls: [], deltas: [], approved: [], first: [] };
  readonly agent;

  constructor(readonly step: Step) {
    this.agent = agentOf(step);
  }

  options() {
    return {
      stream: !this.step.failing, // that step is followed by polling
      pollIntervalMs: POLL_MS,
      onMessage: (message: any) => void this.onMessage(message),
      onToolCall: (call: any) => void this.agent.submitToolResult(call.id, this.resultOf(call.name, call.args)),
      onDelta: (delta: any) => void this.facts.deltas.push(delta.delta),
      files: this.step.picture ? [pictureOf(this.step.picture)] : undefined,
    };
  }

  resultOf(name: string, args: any): string {
    this.facts.calls.push([name, args]);
    return this.step.failing ? '{"error": "the tool broke"}' : String(args.a * args.b);
  }

  onMessage(message: any) {
    const calls = message.tool_invocations.map((call: any) => [call.type, call.status, call.function.name]);
    const text = message.content.map((part: any) => part.text ?? "").join("");
    this.facts.messages.push([message.role, message.status, text, calls]);
    for (const call of message.tool_invocations) {
      if (this.step.decide && call.status === "awaiting_approval" && !this.facts.approved.includes(call.id)) {
        this.facts.approved.push(call.id);
        void fetch(`${plan.base_url}/tools/${call.id}/${this.step.decide}`, {
          method: "POST",
          headers: { Authorization: `Bearer ${plan.key}` },
        });
      }
    }
  }

  async chat(until: (chat: ChatDTO) => boolean = (chat) => chat.status === "idle"): Promise<any> {
    const deadline = Date.now() + PATIENCE_MS;
    while (Date.now() < deadline) {
      const chat = await this.agent.getChat();
      if (chat && until(chat)) return chat;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    throw new Error("the chat does not become as wanted");
  }
}

const verbs: Record<string, (talker: Talker, step: Step) => Promise<void>> = {
  async talk(talker, step) {
    for (const text of step.texts) {
      const sent = await talker.agent.sendMessage(text, talker.options());
      talker.facts.first.push(sent.assistantMessage);
    }
    const chat = (talker.facts.chat = await talker.agent.getChat());
    talker.facts.trace = (await client.chats.getTrace(chat!.id)).data;
  },

  async finish(talker, step) {
    talker.facts.result = await talker.agent.run(step.texts[0], { pollIntervalMs: POLL_MS });
    talker.facts.chat = await talker.agent.getChat();
  },

  async poll(talker, step) {
    talker.facts.first = (await talker.agent.sendMessage(step.texts[0])).assistantMessage;
    const callsOf = (chat: any) => chat.chat_messages.flatMap((message: any) => message.tool_invocations);
    const waiting = await talker.chat((chat) => callsOf(chat).some((call: any) => call.status === "awaiting_input"));
    talker.facts.waiting = waiting;
    const [call] = callsOf(waiting);
    await talker.agent.submitToolResult(call.id, talker.resultOf("calculator", call.function.arguments));
    talker.facts.chat = await talker.chat();
    talker.facts.twice = await talker.agent.submitToolResult(call.id, "again").then(
      () => "taken",
      (error) => error.message,
    );
  },

  /** The stream is opened when all is over. */
  async late(talker, step) {
    await talker.agent.sendMessage(step.texts[0]);
    await talker.chat();
    const seen = new Promise<void>((resolve) => {
      const onMessage = (message: any) => {
        talker.onMessage(message);
        if (message.role === "assistant") resolve();
      };
      talker.agent.startStreaming({ onMessage });
    });
    await seen;
  },

  async stop(talker, step) {
    await talker.agent.sendMessage(step.texts[0]);
    await talker.chat((chat: any) => chat.chat_messages.some((message: any) => message.task_id));
    await talker.agent.stopChat();
    talker.facts.chat = await talker.chat();
  },

  async refused(talker, step) {
    await talker.agent.sendMessage(step.texts[0]).catch((error) => (talker.facts.error = error.message));
  },
};

/** A client of a server that breaks the contract waits for ever; the timer keeps Node alive meanwhile, for nothing else does. */
function tooLong(): Promise<never> {
  return new Promise((_, reject) => setTimeout(() => reject(new Error("it does not end")), PATIENCE_MS));
}

const facts: Step = {};
for (const step of plan.steps as Step[]) {
  const talker = new Talker(step);
  facts[step.name] = talker.facts;
  try {
    await Promise.race([verbs[step.do](talker, step), tooLong()]);
  } catch (error: any) {
    talker.facts.raised = String(error);
  } finally {
    talker.agent.disconnect();
  }
}
process.stdout.write(JSON.stringify(facts), () => process.exit(0));
