// A web server without dependencies: what `script/server` deploys first.
import { createServer } from 'node:http';

const port = Number(process.env.PORT ?? 8080);
const service = process.env.FERROVIA_SERVICE_NAME ?? 'hello';
const version = process.env.FERROVIA_DEPLOYMENT_NUMBER ?? '0';

const page = `<!doctype html>
<meta charset="utf-8">
<title>Hello from Ferrovia</title>
<style>body { font: 18px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem }</style>
<h1>Hello from Ferrovia</h1>
<p>This is <strong>${service}</strong>, version ${version}. Change <code>server.js</code>, run <code>ferrovia up</code> and reload.</p>
`;

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/health') {
    response.writeHead(200, { 'content-type': 'text/plain' }).end('ok\n');
  } else if (pathname === '/') {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page);
  } else {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('not found\n');
  }
});

// Longer than any proxy keeps a connection, so that it is never closed under a request.
server.keepAliveTimeout = 120_000;
server.listen(port, () => console.log(`listening on port ${port}`));

process.on('SIGTERM', () => {
  console.log('SIGTERM: finishing what is in hand');
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
