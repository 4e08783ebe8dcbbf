// What every TypeScript client does: one function for each feature, and the report. The twin of features.py.

import { randomBytes } from "node:crypto";
import { URI, VOCABULARY, packages, sleep, told } from "../servers/vocabulary.mjs";

const FEATURE_MS = 8_000;
const CONNECT_MS = 25_000;
const NEWS_MS = 4_000;
const LIST_CHANGED = "notifications/tools/list_changed";
const UPDATED = "notifications/resources/updated";
const MESSAGE = "notifications/message";

export const NOTICES = [LIST_CHANGED, UPDATED, MESSAGE];
export const CAPABILITIES = { elicitation: { form: {} }, sampling: {}, roots: { listChanged: true } };
export const ANSWERS = {
  "elicitation/create": ({ params }) =>
    params.message === VOCABULARY.form.message ? { action: "accept", content: { name: "Ada" } } : { action: "decline" },
  "sampling/createMessage": () => ({ role: "assistant", model: "none", content: { type: "text", text: "forty-two" } }),
  "roots/list": () => ({ roots: [{ uri: "file:///matrix/one" }] }),
};

export const asked = told({ prefix: "", mode: "legacy", features: "", url: undefined });
asked.run = randomBytes(4).toString("hex");
asked.resource = asked.prefix ? `${asked.prefix.slice(0, -2)}+${URI}` : URI;

export const require = packages(asked.modules);

async function text(session, tool, args = {}) {
  const result = await session.call(tool, args);
  const said = result.content.map((block) => block.text ?? "").join("");
  if (result.isError) throw new Error(`${tool} failed: ${said}`);
  return said;
}

async function until(isTrue, what) {
  const deadline = Date.now() + NEWS_MS;
  while (!(await isTrue())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${NEWS_MS / 1000} s`);
    await sleep(20);
  }
}

const heardOf = (session, method) => session.heard.filter((notice) => notice.method === method);
const plainly = (data) => (data !== null && typeof data === "object" ? data.msg : data);

const FEATURES = {
  async plain(session) {
    const result = await session.call("echo", { text: "häuschen" });
    const said = result.content.map((block) => block.text ?? "").join("");
    return { text: said, structured: result.structuredContent, kept: result._meta?.[VOCABULARY.kept] ?? null };
  },
  async progress(session) {
    const seen = [];
    await session.call("count", {}, { onprogress: ({ progress, total }) => seen.push([progress, total]) });
    return seen;
  },
  async cancel(session) {
    const noted = async (line) => (await text(session, "noted", { line })) === "1";
    const stop = new AbortController();
    const call = session.call("linger", { marker: asked.run }, { signal: stop.signal }).catch(() => undefined);
    await until(() => noted(`started ${asked.run}`), "the start of the call");
    stop.abort("enough");
    await call;
    await until(() => noted(`cancelled ${asked.run}`), "the server's note of the cancellation");
    return "the server noticed";
  },
  elicit: (session) => text(session, "ask_form"),
  sample: (session) => text(session, "ask_model"),
  roots: (session) => text(session, "ask_roots"),
  // The list is read only when a change was announced, so an announcement that comes too early is found out.
  async list_changed(session) {
    const name = `grown_${asked.run}`;
    const announced = () => heardOf(session, LIST_CHANGED).length;
    const stop = await session.listen(undefined);
    await session.tools();
    session.heard.length = 0;
    await text(session, "grow", { name });
    let seen = 0;
    let listed = [];
    while (!listed.includes(asked.prefix + name)) {
      await until(() => announced() > seen, `${LIST_CHANGED} (after ${seen} of them ${name} was not in the list)`);
      seen = announced();
      listed = await session.tools();
    }
    await stop();
    return "told and listed";
  },
  async subscribe(session) {
    const offered = await session.resources();
    if (!offered.includes(asked.resource)) throw new Error(`${asked.resource} is not among ${offered}`);
    const stop = await session.listen(asked.resource);
    session.heard.length = 0;
    await text(session, "touch");
    await until(() => heardOf(session, UPDATED).length > 0, UPDATED);
    await stop();
    const uris = [...new Set(heardOf(session, UPDATED).map((notice) => notice.params.uri))];
    return uris.length === 1 && uris[0] === asked.resource ? "the right URI" : uris;
  },
  async logging(session) {
    const messages = () => heardOf(session, MESSAGE).map(({ params }) => `${params.level}: ${plainly(params.data)}`);
    await session.logLevel("info");
    session.heard.length = 0;
    await text(session, "chat");
    await until(() => messages().some((message) => message.includes("loud")), MESSAGE);
    return messages();
  },
  completion: (session) => session.complete(asked.prefix + VOCABULARY.prompt.name, VOCABULARY.prompt.arguments[0].name, "par"),
  async pagination(session) {
    const names = (await session.tools()).filter((name) => name.startsWith(asked.prefix + VOCABULARY.many.name));
    return [names.length, new Set(names).size];
  },
};

function within(milliseconds, what, promise) {
  let late;
  const limit = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error(`${what}: nothing within ${milliseconds / 1000} s`)), milliseconds);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(late));
}

/** Connect, do everything that was asked for, one after the other, and print the report. */
export async function tell(connect) {
  let report;
  try {
    const session = await within(CONNECT_MS, "the connection", connect());
    report = { library: session.library, version: session.version, features: {} };
    for (const name of asked.features.split(",")) {
      try {
        report.features[name] = { saw: await within(FEATURE_MS, name, FEATURES[name](session)) };
      } catch (error) {
        report.features[name] = { error: String(error) };
      }
    }
    await new Promise((resolve) => process.stdout.write(`${JSON.stringify(report)}\n`, resolve));
    await within(2_000, "the end of the connection", session.close()).catch(() => undefined);
  } catch (error) {
    await new Promise((resolve) => process.stdout.write(`${JSON.stringify({ error: String(error), trace: error.stack })}\n`, resolve));
  }
  process.exit(0);
}
