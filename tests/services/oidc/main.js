// A real OpenID provider: gives a client access tokens for the API "api", signed by the keys that it is told.
//   PORT, KEYS: its private keys as JWKs in JSON, the first one signs. PUT /keys replaces them.
// Prints `ready`, and a line for each request.
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const issuer = `http://127.0.0.1:${process.env.PORT}`;

function handler(keys) {
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'shop',
        client_secret: 'shop-secret',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    jwks: { keys },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:example:api',
        getResourceServerInfo: () => ({
          scope: 'orders:read orders:write',
          audience: 'api',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 600,
          jwt: { sign: { alg: keys[0].alg } },
        }),
      },
    },
  });
  return provider.callback();
}

let handle = handler(JSON.parse(process.env.KEYS));

const server = createServer((request, response) => {
  console.log(`${request.method} ${request.url}`);
  if (request.method === 'PUT' && request.url === '/keys') {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      handle = handler(JSON.parse(body));
      response.end();
    });
    return;
  }
  handle(request, response);
});

server.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('ready'));
