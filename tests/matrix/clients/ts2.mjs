// The official TypeScript client, 2.x: node ts2.mjs --modules DIR [--mode modern] --features … (--url URL | -- COMMAND…)

import { readFileSync } from "node:fs";
import { ANSWERS, CAPABILITIES, NOTICES, asked, require, tell } from "./features.mjs";

const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");

const modern = asked.mode === "modern";

async function connect() {
  const versionNegotiation = { mode: modern ? "auto" : "legacy" };
  const client = new Client({ name: "matrix-ts2", version: "1.0.0" }, { capabilities: CAPABILITIES, versionNegotiation });
  const heard = [];
  let level;
  for (const method in ANSWERS) client.setRequestHandler(method, ANSWERS[method]);
  for (const method of NOTICES) client.setNotificationHandler(method, (notice) => void heard.push(notice));
  const [command, ...args] = asked.command;
  const transport = asked.url
    ? new StreamableHTTPClientTransport(new URL(asked.url))
    : new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" });
  await client.connect(transport);
  const { version } = JSON.parse(readFileSync(`${asked.modules}/@modelcontextprotocol/client/package.json`, "utf-8"));
  return {
    heard,
    library: `@modelcontextprotocol/client ${version}`,
    version: client.getNegotiatedProtocolVersion(),
    call(tool, args, options) {
      const _meta = level && { "io.modelcontextprotocol/logLevel": level };
      return client.callTool({ name: asked.prefix + tool, arguments: args, ...(_meta && { _meta }) }, options);
    },
    tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
    resources: async () => (await client.listResources()).resources.map((resource) => resource.uri),
    async complete(name, argument, value) {
      const found = await client.complete({ ref: { type: "ref/prompt", name }, argument: { name: argument, value } });
      return found.completion.values;
    },
    async logLevel(wanted) {
      if (modern) level = wanted;
      else await client.setLoggingLevel(wanted);
    },
    async listen(uri) {
      if (modern) {
        const stream = await client.listen({ toolsListChanged: true, ...(uri && { resourceSubscriptions: [uri] }) });
        return () => stream.close();
      }
      if (uri) await client.subscribeResource({ uri });
      return () => uri && client.unsubscribeResource({ uri });
    },
    close: () => client.close(),
  };
}

await tell(connect);
