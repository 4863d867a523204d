// BullMQ under test, started by peer.py: its worker and its producer.
//
// bullmq.mjs work|create ADDRESS IN_FLIGHT. work: says "ready", then sends what is due until its input
// ends. create: reads one line of JSON, an Order, and answers with the seconds it took and its CPU
// time.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(new URL('.installed/bullmq/', import.meta.url));
const { Queue, Worker } = require('bullmq');
const { Pool } = require('undici');

const [role, address, inFlight] = process.argv.slice(2);
const { hostname: host, port } = new URL(address);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const NAME = 'bench';
const CREATING = 64; // calls under way
const TIMEOUT = 30_000; // ms of a request

const answer = (value) => console.log(JSON.stringify(value));

function sender() {
  const pools = new Map();
  const options = { connections: Number(inFlight), headersTimeout: TIMEOUT, bodyTimeout: TIMEOUT };
  const pool = (origin) => {
    if (!pools.has(origin)) pools.set(origin, new Pool(origin, options));
    return pools.get(origin);
  };
  return async ({ data }) => {
    const { origin, pathname: path } = new URL(data.hook);
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify(data.payload);
    const response = await pool(origin).request({ path, method: 'POST', headers, body });
    await response.body.dump();
    if (response.statusCode >= 300) throw new Error(`answered ${response.statusCode}`);
  };
}

async function work(input) {
  const kept = { removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } };
  const worker = new Worker(NAME, sender(), { connection, concurrency: Number(inFlight), ...kept });
  worker.on('error', (error) => console.error(error.message));
  await worker.waitUntilReady();
  answer('ready');
  input.on('close', () => process.exit());
}

async function create(input) {
  const asked = new Promise((resolve) => input.once('line', resolve)); // before any line can come
  const queue = new Queue(NAME, {
    connection,
    defaultJobOptions: { removeOnComplete: true, removeOnFail: true, attempts: 5 },
  });
  await queue.waitUntilReady();
  const { hook, due_ms: due, payloads } = JSON.parse(await asked);
  const began = performance.now();
  let next = 0;
  const some = async () => {
    while (next < due.length) {
      const n = next++;
      const delay = Math.max(0, due[n] - Date.now());
      await queue.add('deliver', { hook, payload: payloads[n] }, { jobId: `bench-${n}`, delay });
    }
  };
  await Promise.all(Array.from({ length: CREATING }, some));
  const cpu = process.cpuUsage();
  answer({ seconds: (performance.now() - began) / 1000, cpu_s: (cpu.user + cpu.system) / 1e6 });
  process.exit();
}

await { work, create }[role](createInterface({ input: process.stdin }));
