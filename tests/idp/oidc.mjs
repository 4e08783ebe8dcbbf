// An OpenID Provider with a login page of its own. Consent is given by itself, except to native applications and where
// it is asked for (prompt=consent): then people see a page with one button.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(`${process.env.OIDC_PACKAGES}/package.json`));
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);
const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const resources = settings.resources ?? {};

const configuration = {
  clients: settings.clients,
  pkce: { required: () => true },
  claims: { openid: ['sub'], profile: ['name', 'groups', 'roles'], email: ['email', 'email_verified'] },
  scopes: ['openid', 'profile', 'email', 'offline_access', ...(settings.scopes ?? [])],
  conformIdTokenClaims: settings.claims_at_userinfo ?? false,
  cookies: { keys: ['only a test'] },
  ttl: { AccessToken: settings.token_ttl ?? 300, IdToken: 300, Interaction: 600, Session: 3600, Grant: 3600 },
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    registration: { enabled: settings.registration ?? false },
    rpInitiatedLogout: { enabled: true },
    dPoP: { enabled: true },
    ...(settings.documents ? { clientIdMetadataDocument: { enabled: true, ack: 'draft-02' } } : {}),
    resourceIndicators: {
      enabled: true,
      defaultResource: () => settings.default_resource ?? undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, uri) => {
        if (!(uri in resources)) throw new Error(`no such resource ${uri}`);
        return { scope: resources[uri], accessTokenFormat: 'jwt', audience: uri };
      },
    },
  },
  findAccount: (ctx, id) => settings.people[id] && {
    accountId: id,
    claims: () => ({ sub: id, ...settings.people[id] }),
  },
  loadExistingGrant: async (ctx) => {
    const { Grant } = ctx.oidc.provider;
    const grant = new Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid profile email offline_access');
    for (const [uri, scope] of Object.entries(resources)) grant.addResourceScope(uri, scope);
    await grant.save();
    return grant;
  },
  // Without the dispatcher that refuses addresses of this machine; `hosts` says which names stand for which address.
  fetch: (url, { dispatcher, ...options }) => {
    const at = new URL(url);
    at.hostname = settings.hosts?.[at.hostname] ?? at.hostname;
    return fetch(at, options);
  },
  interactions: { url: (ctx, interaction) => `/login/${interaction.uid}` },
};

const provider = new Provider(settings.issuer, configuration);
provider.on('server_error', (ctx, error) => console.error(error));

const form = (uid, said) => `<!doctype html><title>Sign in</title><h1>Sign in</h1><p>${said}</p>
  <form method="post" action="/login/${uid}"><input name="login" autofocus><input name="password" type="password">
  <button>Sign in</button></form>`;

const consent = (uid, client) => `<!doctype html><title>Agree</title><h1>Agree</h1><p>${client} wants to act for you.</p>
  <form method="post" action="/login/${uid}"><button>Allow</button></form>`;

provider.use(async (ctx, next) => {
  const uid = /^\/login\/([\w-]+)$/.exec(ctx.path)?.[1];
  if (!uid) return next();
  const { prompt, params } = await provider.interactionDetails(ctx.req, ctx.res);
  const agreeing = prompt.name === 'consent';
  if (ctx.method === 'GET') {
    ctx.type = 'html';
    ctx.body = agreeing ? consent(uid, params.client_id) : form(uid, '');
    return;
  }
  if (agreeing) {
    await provider.interactionFinished(ctx.req, ctx.res, { consent: {} }, { mergeWithLastSubmission: true });
    ctx.respond = false;
    return;
  }
  let body = '';
  for await (const piece of ctx.req) body += piece;
  const { login, password } = Object.fromEntries(new URLSearchParams(body));
  if (!settings.people[login] || password !== `pw-${login}`) {
    ctx.type = 'html'; ctx.body = form(uid, 'Wrong name or password.'); return;
  }
  await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: login } });
  ctx.respond = false;
});

provider.listen(settings.port, '127.0.0.1', () => console.log('listening'));
