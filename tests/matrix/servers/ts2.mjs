// A dual-era server on the official TypeScript SDK 2.x: node ts2.mjs --modules DIR --notes FILE [--port N]

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Offer, STEP_MS, URI, VOCABULARY, body, completions, echoed, listen, packages, said, sleep, spoken, told } from "./vocabulary.mjs";

const asked = told({ port: undefined, notes: undefined });
const require = packages(asked.modules);
const { Server, createMcpHandler, inputRequired, isInitializeRequest, isLegacyRequest } = require("@modelcontextprotocol/server");
const { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } = require("@modelcontextprotocol/node");
const { serveStdio } = require("@modelcontextprotocol/server/stdio");

const offer = new Offer(asked.notes);
const capabilities = {
  tools: { listChanged: true },
  resources: { subscribe: true },
  prompts: {},
  completions: {},
  logging: {},
};
const QUESTIONS = {
  ask_form: () => inputRequired.elicit(VOCABULARY.form),
  ask_model: () => inputRequired.createMessage(VOCABULARY.sample),
  ask_roots: () => inputRequired.listRoots(),
};
const modern = createMcpHandler(({ era }) => matrix(era), { legacy: "reject" });

/** A server for one legacy session, one modern request, or one stdio connection; the offer is shared by all. */
function matrix(era) {
  const server = new Server({ name: "matrix-ts2", version: "1.0.0" }, { capabilities });
  const http = asked.port !== undefined;
  let watching = era === "modern";
  const tools = {
    echo: ({ text }) => echoed(text),
    async count(_, ctx) {
      const progressToken = ctx.mcpReq._meta?.progressToken;
      for (const progress of progressToken === undefined ? [] : [1, 2, 3]) {
        const params = { progressToken, progress, total: 3 };
        await ctx.mcpReq.notify({ method: "notifications/progress", params });
        await sleep(STEP_MS);
      }
      return said("counted");
    },
    linger: async ({ marker }, ctx) => said(await offer.linger(marker, ctx.mcpReq.signal)),
    noted: ({ line }) => said(String(offer.noted(line))),
    async grow({ name }) {
      offer.grow(name);
      if (era === "modern" && http) modern.notify.toolsChanged();
      else await server.sendToolListChanged();
      return said("grown");
    },
    async touch() {
      if (era === "modern" && http) modern.notify.resourceUpdated(URI);
      else if (watching) await server.sendResourceUpdated({ uri: URI });
      return said("touched");
    },
    async chat(_, ctx) {
      await ctx.mcpReq.log("debug", "quiet");
      await ctx.mcpReq.log("warning", "loud");
      return said("chatted");
    },
    slow: ({ seconds }) => sleep(1000 * seconds).then(() => said("done")),
  };
  function call({ params }, ctx) {
    const question = QUESTIONS[params.name];
    if (!question) return tools[params.name](params.arguments, ctx);
    const answer = ctx.mcpReq.inputResponses?.asked;
    return answer ? said(spoken(answer)) : inputRequired({ inputRequests: { asked: question() } });
  }
  server.setRequestHandler("tools/list", ({ params }) => offer.page(params?.cursor));
  server.setRequestHandler("tools/call", call);
  server.setRequestHandler("resources/list", () => ({ resources: [VOCABULARY.resource] }));
  server.setRequestHandler("resources/read", ({ params }) => ({ contents: [{ uri: params.uri, text: "watched" }] }));
  server.setRequestHandler("resources/subscribe", () => ((watching = true), {}));
  server.setRequestHandler("resources/unsubscribe", () => ((watching = false), {}));
  server.setRequestHandler("prompts/list", () => ({ prompts: [VOCABULARY.prompt] }));
  server.setRequestHandler("completion/complete", ({ params }) => ({ completion: { values: completions(params.argument.value) } }));
  return server;
}

const sessions = new Map();
const handleModern = toNodeHandler(modern);

async function serveLegacy(request, response, message) {
  const id = request.headers["mcp-session-id"];
  if (sessions.has(id)) return sessions.get(id).handleRequest(request, response, message);
  if (id || !isInitializeRequest(message)) {
    response.writeHead(id ? 404 : 400, { "content-type": "application/json" });
    const error = { code: -32000, message: "Bad Request: no valid session ID" };
    return response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
  }
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (made) => sessions.set(made, transport),
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await matrix("legacy").connect(transport);
  return transport.handleRequest(request, response, message);
}

async function serve(request, response) {
  if (request.method !== "POST") return serveLegacy(request, response);
  const message = await body(request);
  const legacy = await isLegacyRequest(await toWebRequest(request, message));
  return legacy ? serveLegacy(request, response, message) : handleModern(request, response, message);
}

if (asked.port === undefined) serveStdio(({ era }) => matrix(era));
else listen(createServer(serve), asked.port);
