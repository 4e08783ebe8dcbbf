// The official TypeScript client, 2.x, with its OAuth client: node client_signs_in.mjs MODULES URL EASY HARD TTL
//
// Prints {"open": URL} for each page that its user is to open, and at the end one line with what came of it.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

const [modules, url, easy, hard, ttl] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const { Client, StreamableHTTPClientTransport, UnauthorizedError } = require('@modelcontextprotocol/client');

const answers = [];
let wake = () => {};
const desk = createServer((request, response) => {
  response.end('Go back to your client.');
  const at = new URL(request.url, 'http://127.0.0.1');
  if (at.pathname === '/callback') { answers.push(at.searchParams); wake(); }
}).listen(0, '127.0.0.1');
await once(desk, 'listening');

const kept = { asked: [] };
const redirectUrl = `http://127.0.0.1:${desk.address().port}/callback`;
const provider = {
  redirectUrl,
  clientMetadata: {
    client_name: 'A script', redirect_uris: [redirectUrl], grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'], token_endpoint_auth_method: 'none',
  },
  state: () => 'of-this-run',
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (state) => { kept.discovery = state; },
  discoveryState: () => kept.discovery,
  redirectToAuthorization: (to) => {
    kept.asked.push(to.searchParams.get('scope'));
    console.log(JSON.stringify({ open: to.href }));
  },
};

let transport;
const connected = async () => {
  const client = new Client({ name: 'script', version: '1.0.0' });
  transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  await client.connect(transport);
  return client;
};

// Whatever is tried again after its user agreed.
const agreed = async (attempt) => {
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  while (!answers.length) await new Promise((resolve) => { wake = resolve; });
  await transport.finishAuth(answers.pop());
  return attempt();
};

const text = (result) => result.content.map((block) => block.text ?? '').join('');
const client = await agreed(connected);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const first = kept.tokens;
await sleep(Number(ttl) * 1000 + 2100);
const said = text(await client.callTool({ name: easy, arguments: {} }));
const refreshed = first.refresh_token !== kept.tokens.refresh_token && kept.asked.length === 1;
const failed = await agreed(() => client.callTool({ name: hard, arguments: {} }));
console.log(JSON.stringify({
  tools, easy: said, hard: failed.isError, refreshed, asked: kept.asked, registered: kept.client.client_id,
}));
await client.close();
desk.close();
