import express from 'express';

const port = Number(process.env.PORT ?? 8080);
const app = express();
const todos = [{ id: 1, text: 'deploy this application', done: true }];

app.use(express.json());

app.get('/', (request, response) => {
  response.json({ application: 'node-express', todos: todos.length });
});

app.get('/health', (request, response) => {
  response.type('text/plain').send('ok\n');
});

app.get('/todos', (request, response) => {
  response.json(todos);
});

app.post('/todos', (request, response) => {
  const text = request.body?.text;
  if (typeof text !== 'string' || text === '') {
    response.status(400).json({ error: 'a todo has a text' });
    return;
  }
  const todo = { id: todos.length + 1, text, done: false };
  todos.push(todo);
  response.status(201).json(todo);
});

const server = app.listen(port, () => console.log(`listening on port ${port}`));
server.keepAliveTimeout = 120_000;

process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
