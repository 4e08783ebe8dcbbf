// A server on the official TypeScript SDK 1.x: node ts1.mjs --modules DIR --notes FILE [--port N]

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { LEVELS, Offer, STEP_MS, URI, VOCABULARY, body, completions, echoed, listen, packages, said, sleep, spoken, told } from "./vocabulary.mjs";

const asked = told({ port: undefined, notes: undefined });
const require = packages(asked.modules);
const { Server } = require("@modelcontextprotocol/sdk/server/index.js");
const { StdioServerTransport } = require("@modelcontextprotocol/sdk/server/stdio.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
const { InMemoryTaskStore } = require("@modelcontextprotocol/sdk/experimental/tasks");
const t = require("@modelcontextprotocol/sdk/types.js");

const offer = new Offer(asked.notes);
const taskStore = new InMemoryTaskStore();
const capabilities = {
  tools: { listChanged: true },
  resources: { subscribe: true },
  prompts: {},
  completions: {},
  logging: {},
  tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } },
};

/** A server for one session; the offer is shared by all of them. */
function matrix() {
  const server = new Server({ name: "matrix-ts1", version: "1.0.0" }, { capabilities, taskStore });
  let level = "debug";
  let watching = false;
  const onStream = (extra) => ({ relatedRequestId: extra.requestId });
  const tools = {
    echo: ({ text }) => echoed(text),
    async count(_, extra) {
      const progressToken = extra._meta?.progressToken;
      for (const progress of progressToken === undefined ? [] : [1, 2, 3]) {
        const params = { progressToken, progress, total: 3 };
        await extra.sendNotification({ method: "notifications/progress", params });
        await sleep(STEP_MS);
      }
      return said("counted");
    },
    linger: async ({ marker }, extra) => said(await offer.linger(marker, extra.signal)),
    noted: ({ line }) => said(String(offer.noted(line))),
    ask_form: async (_, extra) => said(spoken(await server.elicitInput(VOCABULARY.form, onStream(extra)))),
    ask_model: async (_, extra) => said(spoken(await server.createMessage(VOCABULARY.sample, onStream(extra)))),
    ask_roots: async (_, extra) => said(spoken(await server.listRoots({}, onStream(extra)))),
    async grow({ name }) {
      offer.grow(name);
      await server.sendToolListChanged();
      return said("grown");
    },
    async touch() {
      if (watching) await server.sendResourceUpdated({ uri: URI });
      return said("touched");
    },
    async chat(_, extra) {
      for (const params of [{ level: "debug", data: "quiet" }, { level: "warning", data: "loud" }]) {
        if (LEVELS.indexOf(params.level) >= LEVELS.indexOf(level)) {
          await extra.sendNotification({ method: "notifications/message", params });
        }
      }
      return said("chatted");
    },
    async slow({ seconds }, extra, task) {
      if (!task) return sleep(1000 * seconds).then(() => said("done"));
      const made = await extra.taskStore.createTask({ ttl: task.ttl ?? 60_000, pollInterval: 50 });
      setTimeout(() => taskStore.storeTaskResult(made.taskId, "completed", said("done")), 1000 * seconds);
      return { task: made };
    },
  };
  server.setRequestHandler(t.ListToolsRequestSchema, ({ params }) => offer.page(params?.cursor));
  server.setRequestHandler(t.CallToolRequestSchema, ({ params }, extra) => tools[params.name](params.arguments, extra, params.task));
  server.setRequestHandler(t.ListResourcesRequestSchema, () => ({ resources: [VOCABULARY.resource] }));
  server.setRequestHandler(t.ReadResourceRequestSchema, ({ params }) => ({ contents: [{ uri: params.uri, text: "watched" }] }));
  server.setRequestHandler(t.SubscribeRequestSchema, () => ((watching = true), {}));
  server.setRequestHandler(t.UnsubscribeRequestSchema, () => ((watching = false), {}));
  server.setRequestHandler(t.ListPromptsRequestSchema, () => ({ prompts: [VOCABULARY.prompt] }));
  server.setRequestHandler(t.CompleteRequestSchema, ({ params }) => ({ completion: { values: completions(params.argument.value) } }));
  server.setRequestHandler(t.SetLevelRequestSchema, ({ params }) => ((level = params.level), {}));
  return server;
}

const sessions = new Map();

async function serve(request, response) {
  const known = sessions.get(request.headers["mcp-session-id"]);
  const message = request.method === "POST" ? await body(request) : undefined;
  if (known) return known.handleRequest(request, response, message);
  if (request.headers["mcp-session-id"] || !t.isInitializeRequest(message)) {
    response.writeHead(request.headers["mcp-session-id"] ? 404 : 400, { "content-type": "application/json" });
    const error = { code: -32000, message: "Bad Request: no valid session ID" };
    return response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
  }
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await matrix().connect(transport);
  return transport.handleRequest(request, response, message);
}

if (asked.port === undefined) await matrix().connect(new StdioServerTransport());
else listen(createServer(serve), asked.port);
