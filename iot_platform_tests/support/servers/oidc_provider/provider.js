// A real OpenID provider for tests: node provider.js PORT REDIRECT_URI. Prints "ready" when it listens.
// Any name logs in, with any password, by the library's own forms.
import { Provider } from 'oidc-provider';

const [port, redirectUri] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [{ client_id: 'console', client_secret: 'a secret of the console at its provider', redirect_uris: [redirectUri] }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: true } },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: !id.startsWith('unverified'), name: id }),
  }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
