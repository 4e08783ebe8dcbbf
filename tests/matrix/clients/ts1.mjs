// The official TypeScript client, 1.x: node ts1.mjs --modules DIR --features … (--url URL | -- COMMAND…)

import { readFileSync } from "node:fs";
import { ANSWERS, CAPABILITIES, NOTICES, asked, require, tell } from "./features.mjs";

const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const t = require("@modelcontextprotocol/sdk/types.js");

const SCHEMAS = {
  "elicitation/create": t.ElicitRequestSchema,
  "sampling/createMessage": t.CreateMessageRequestSchema,
  "roots/list": t.ListRootsRequestSchema,
  "notifications/tools/list_changed": t.ToolListChangedNotificationSchema,
  "notifications/resources/updated": t.ResourceUpdatedNotificationSchema,
  "notifications/message": t.LoggingMessageNotificationSchema,
};

async function connect() {
  const client = new Client({ name: "matrix-ts1", version: "1.0.0" }, { capabilities: CAPABILITIES });
  const heard = [];
  for (const method in ANSWERS) client.setRequestHandler(SCHEMAS[method], ANSWERS[method]);
  for (const method of NOTICES) client.setNotificationHandler(SCHEMAS[method], (notice) => void heard.push(notice));
  const [command, ...args] = asked.command;
  const transport = asked.url
    ? new StreamableHTTPClientTransport(new URL(asked.url))
    : new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" });
  await client.connect(transport);
  const { version } = JSON.parse(readFileSync(`${asked.modules}/@modelcontextprotocol/sdk/package.json`, "utf-8"));
  return {
    heard,
    library: `@modelcontextprotocol/sdk ${version}`,
    version: asked.url ? transport.protocolVersion : "2025-11-25", // this SDK does not tell it on stdio
    call: (tool, args, options) => client.callTool({ name: asked.prefix + tool, arguments: args }, undefined, options),
    async tools() {
      const names = [];
      let cursor;
      do {
        const page = await client.listTools({ cursor });
        names.push(...page.tools.map((tool) => tool.name));
        cursor = page.nextCursor;
      } while (cursor !== undefined);
      return names;
    },
    resources: async () => (await client.listResources()).resources.map((resource) => resource.uri),
    async complete(name, argument, value) {
      const found = await client.complete({ ref: { type: "ref/prompt", name }, argument: { name: argument, value } });
      return found.completion.values;
    },
    logLevel: (level) => client.setLoggingLevel(level),
    async listen(uri) {
      if (uri) await client.subscribeResource({ uri });
      return () => uri && client.unsubscribeResource({ uri });
    },
    close: () => client.close(),
  };
}

await tell(connect);
