// What the TypeScript servers and clients share: the vocabulary, their arguments, and how packages are found.

import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const file = new URL("../vocabulary.json", import.meta.url);

export const VOCABULARY = JSON.parse(readFileSync(file, "utf-8"));
export const URI = VOCABULARY.resource.uri;
export const LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
export const LINGER_MS = 30_000;
/** How long one step of `count` takes. TypeScript clients lose progress that arrives in one chunk with the result. */
export const STEP_MS = 20;

/** The arguments of the script; everything after `--` is the command of a stdio server. */
export function told(options) {
  const own = Object.fromEntries(Object.keys(options).map((name) => [name, { type: "string" }]));
  const given = parseArgs({ options: { modules: { type: "string" }, ...own }, allowPositionals: true });
  return { ...options, ...given.values, command: given.positionals };
}

/** A `require` that finds packages in the folder where they were installed for these tests. */
export function packages(modules) {
  return createRequire(`${modules}/`);
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const plainTool = (name) => ({ name, description: "One of many.", inputSchema: { type: "object" } });

/** The tools of one server process; `grow` adds to them. */
export class Offer {
  constructor(notes) {
    const { count, name } = VOCABULARY.many;
    const many = Array.from({ length: count }, (_, number) => plainTool(name + String(number).padStart(4, "0")));
    this.notes = notes;
    this.tools = [...VOCABULARY.tools, ...many];
  }

  grow(name) {
    this.tools.push(plainTool(name));
  }

  page(cursor) {
    const start = Number(cursor ?? 0);
    const end = start + VOCABULARY.many.page;
    return { tools: this.tools.slice(start, end), ...(end < this.tools.length && { nextCursor: String(end) }) };
  }

  note(line) {
    appendFileSync(this.notes, `${line}\n`);
  }

  noted(line) {
    const lines = existsSync(this.notes) ? readFileSync(this.notes, "utf-8").split("\n") : [];
    return lines.filter((noted) => noted === line).length;
  }

  /** Stay until the signal says that the call was cancelled, and note both. */
  async linger(marker, signal) {
    this.note(`started ${marker}`);
    await new Promise((resolve) => {
      const late = setTimeout(resolve, LINGER_MS);
      const stop = () => {
        clearTimeout(late);
        this.note(`cancelled ${marker}`);
        resolve();
      };
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop, { once: true });
    });
    return "lingered";
  }
}

export const said = (text) => ({ content: [{ type: "text", text }] });

export const echoed = (text) => ({
  content: [{ type: "text", text }],
  structuredContent: { text },
  _meta: { [VOCABULARY.kept]: text },
});

export const completions = (start) => VOCABULARY.words.filter((word) => word.startsWith(start));

/** What a tool says of the answer to its question. */
export function spoken(answer) {
  if (answer.action) return `${answer.action} ${answer.content?.name}`;
  if (answer.roots) return answer.roots.map((root) => root.uri).join(" ");
  return answer.content.text;
}

/** Listen on loopback and say where on stdout: clients may connect from then on. */
export function listen(server, port) {
  server.keepAliveTimeout = 30_000;
  server.listen(Number(port), "127.0.0.1", () => {
    console.log(`matrix: http://127.0.0.1:${server.address().port}/mcp`);
  });
}

export async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const text = Buffer.concat(parts).toString("utf-8");
  return text ? JSON.parse(text) : undefined;
}
