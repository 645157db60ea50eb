import { serve } from '@hono/node-server';
import type { Server } from 'node:http';
import { Hono } from 'hono';
import { celsius, isScale, type Scale } from './temperature.js';

const port = Number(process.env.PORT ?? 8080);
const app = new Hono();

app.get('/', (context) => context.json({ application: 'typescript', try: '/celsius/451?from=fahrenheit' }));

app.get('/health', (context) => context.text('ok\n'));

app.get('/celsius/:value', (context) => {
  const value = Number(context.req.param('value'));
  const from: string = context.req.query('from') ?? 'fahrenheit';
  if (Number.isNaN(value) || !isScale(from)) {
    return context.json({ error: 'give a number, and from=fahrenheit or from=kelvin' }, 400);
  }
  const scale: Scale = from;
  return context.json({ celsius: celsius(value, scale) });
});

const server = serve({ fetch: app.fetch, port }, () => console.log(`listening on port ${port}`)) as Server;
server.keepAliveTimeout = 120_000;

process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
