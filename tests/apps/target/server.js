// The application that the live tests deploy: it says which version it is, takes every kind of traffic, and looks
// around from inside its container. `mode.txt` says how it misbehaves: works, exits, unhealthy, silent.
const http = require('node:http');
const net = require('node:net');
const dgram = require('node:dgram');
const dns = require('node:dns');
const fs = require('node:fs');
const crypto = require('node:crypto');

const version = fs.readFileSync('version.txt', 'utf8').trim();
const mode = fs.readFileSync('mode.txt', 'utf8').trim();
const port = Number(process.env.PORT || 8080);
console.log(`version ${version} starts (${mode})`);

if (mode === 'exits') {
  console.error('this version does not start');
  process.exit(3);
}

function connect(host, port, timeout) {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port: Number(port) });
    const done = (result) => { socket.destroy(); resolve(result); };
    socket.setTimeout(timeout, () => done('timeout'));
    socket.on('connect', () => done('connected'));
    socket.on('error', (error) => done(error.code || String(error)));
  });
}

function datagram(host, port, timeout) {
  return new Promise((resolve) => {
    const socket = dgram.createSocket('udp4');
    const timer = setTimeout(() => { socket.close(); resolve('timeout'); }, timeout);
    socket.on('message', (message) => { clearTimeout(timer); socket.close(); resolve(`answer ${message.length}`); });
    socket.on('error', (error) => { clearTimeout(timer); socket.close(); resolve(error.code); });
    // A question for the address of `ferrovia.internal`.
    const question = Buffer.from('00010100000100000000000008666572726f76696108696e7465726e616c0000010001', 'hex');
    socket.send(question, Number(port), host);
  });
}

// Each request on a connection of its own: what is open keeps its replica.
function get(url) {
  return new Promise((resolve) => {
    const failed = (error) => resolve({ error: error.code || error.message });
    const request = http.get(url, { agent: false, timeout: 5000 }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(parts).toString() }));
      response.on('error', failed);
    });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', failed);
  });
}

const routes = {
  '/': async () => version,
  '/health': async (query, response) => {
    if (mode === 'unhealthy') response.statusCode = 500;
    return version;
  },
  '/slow': async (query) => {
    await new Promise((resolve) => setTimeout(resolve, Number(query.get('ms'))));
    return version;
  },
  '/replica': async () => process.env.FERROVIA_REPLICA_ID,
  '/variable': async (query) => {
    const value = process.env[query.get('name')];
    return JSON.stringify(value === undefined ? null : {
      bytes: Buffer.byteLength(value), sha256: crypto.createHash('sha256').update(value).digest('hex'),
    });
  },
  '/connect': (query) => connect(query.get('host'), query.get('port'), 1500),
  '/datagram': (query) => datagram(query.get('host'), query.get('port'), 1500),
  '/fetch': async (query) => JSON.stringify(await get(query.get('url'))),
  '/resolve': (query) => new Promise((resolve) => {
    dns.resolve4(query.get('name'), (error, found) => resolve(error ? error.code : found.join(' ')));
  }),
  '/file': async (query) => String(fs.existsSync(query.get('path'))),
  '/gateway': async () => {
    const row = fs.readFileSync('/proc/net/route', 'utf8').split('\n').map((line) => line.split('\t')).find((cells) => cells[1] === '00000000');
    return row[2].match(/../g).reverse().map((hex) => parseInt(hex, 16)).join('.');
  },
  '/log': async (query) => {
    const count = Number(query.get('lines'));
    for (let n = 0; n < count; n += 1) {
      if (!process.stdout.write(`line ${query.get('tag')} ${n}\n`)) await new Promise((resolve) => process.stdout.once('drain', resolve));
    }
    return String(count);
  },
  '/allocate': async (query) => {
    const held = [];
    for (let n = 0; n < Number(query.get('megabytes')); n += 1) held.push(Buffer.alloc(1 << 20, 1));
    return String(held.length);
  },
  '/exit': async (query) => { setTimeout(() => process.exit(Number(query.get('code'))), 20); return 'exiting'; },
};

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://target');
  response.setHeader('x-version', version);
  if (request.method === 'PUT' || request.method === 'POST') {
    const hash = crypto.createHash('sha256');
    let bytes = 0;
    for await (const chunk of request) { hash.update(chunk); bytes += chunk.length; }
    response.end(JSON.stringify({ version, bytes, sha256: hash.digest('hex') }));
    return;
  }
  const route = routes[url.pathname];
  if (!route) { response.statusCode = 404; response.end('no such page'); return; }
  try {
    response.end(String(await route(url.searchParams, response)));
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
});

// A WebSocket that answers every text message with itself (RFC 6455, messages of up to 125 bytes).
server.on('upgrade', (request, socket) => {
  const key = crypto.createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ${key}\r\n\r\n`);
  let pending = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 6 && pending.length >= 6 + (pending[1] & 127)) {
      const length = pending[1] & 127;
      const mask = pending.subarray(2, 6);
      const payload = Buffer.from(pending.subarray(6, 6 + length).map((byte, n) => byte ^ mask[n % 4]));
      const opcode = pending[0] & 15;
      pending = pending.subarray(6 + length);
      socket.write(Buffer.concat([Buffer.from([0x80 | opcode, payload.length]), payload]));
      if (opcode === 8) socket.end();
    }
  });
  socket.on('error', () => socket.destroy());
});

// A plain TCP echo, for private connections.
const echo = net.createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => socket.write(`${version} ${chunk}`));
});

process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
  setTimeout(() => process.exit(0), 8000).unref();
});

if (mode !== 'silent') {
  server.listen(port, '0.0.0.0', () => console.log(`version ${version} listens on ${port}`));
  echo.listen(9000, '0.0.0.0');
} else {
  server.listen(port, '127.0.0.1');
}
